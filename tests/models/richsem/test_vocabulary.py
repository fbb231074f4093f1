"""Other words for a trained model, on the real detector in miniature."""

import copy

import pytest
import torch

from models.richsem.vocabulary import Vocabulary, change_vocabulary, check_words
from tests.models.tiny import EMBEDDING, NAMES, baseline_config, build, make_images, tiny_config
from util.errors import UserError

CONFIGS = {
    "plain": {},
    "one class in the encoder": {"enc_cls_agn": True},
    "shared projection": {"share_vl_proj": True},
    "deep projections": {"use_mlp_proj": True, "use_cls_mlp_proj": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    made = {}

    def get(kind: str):
        if kind not in made:
            config = baseline_config() if kind == "linear" else tiny_config(**CONFIGS[kind])
            made[kind] = build(config, cache).model.eval()
        return copy.deepcopy(made[kind])

    return get


@torch.no_grad()
def answer(model):
    return model(make_images()).final


def rows(count: int, seed: int = 3):
    return torch.randn(count, EMBEDDING, generator=torch.Generator().manual_seed(seed))


def extended(words, select_by="trained") -> Vocabulary:
    columns = (*range(len(NAMES)), *(-1 for _ in words))
    return Vocabulary((*NAMES, *words), columns, extends=True, select_by=select_by)


@pytest.mark.parametrize("kind", CONFIGS)
def test_added_words_change_no_bit_of_a_trained_class(models, kind):
    model = models(kind)
    before = answer(model)
    change_vocabulary(model, extended(("a", "b", "c")), rows(3), one_class_encoder="encoder" in kind)
    after = answer(model)
    assert after.logits.shape[-1] == len(NAMES) + 3
    assert torch.equal(after.logits[..., : len(NAMES)], before.logits)
    assert torch.equal(after.boxes_cxcywh, before.boxes_cxcywh)


def test_an_added_row_scores_as_a_trained_row_would(models):
    model = models("plain")
    twin = model.head.classifier.text.raw[2:3].clone()
    change_vocabulary(model, extended(("again",)), twin)
    logits = answer(model).logits
    torch.testing.assert_close(logits[..., -1], logits[..., 2])


def test_queries_are_chosen_by_the_added_words_where_that_is_asked(models):
    own, all_words = models("plain"), models("plain")
    change_vocabulary(own, extended(("a",) * 8), 5 * rows(8))
    change_vocabulary(all_words, extended(("a",) * 8, "names"), 5 * rows(8))
    assert not torch.equal(answer(own).boxes_cxcywh, answer(all_words).boxes_cxcywh)
    queries = torch.randn(4, 32)
    classifier = all_words.query_selection.classifier
    torch.testing.assert_close(classifier.max_logit(queries), classifier(queries).amax(-1))


def test_names_replace_the_rows_in_their_order(models):
    model = models("plain")
    raw, new = model.head.classifier.text.raw.clone(), rows(1)
    words = Vocabulary(("kite", "new", "cat"), (5, -1, 3), extends=False, select_by="names")
    before = answer(model)
    assert model.denoising is not None
    change_vocabulary(model, words, new)
    expected = torch.stack((raw[5], new[0], raw[3]))
    assert torch.equal(model.head.classifier.text.raw, expected)
    assert torch.equal(model.query_selection.classifier.text.raw, expected)
    assert answer(model).logits.shape[-1] == 3
    by_trained = models("plain")
    change_vocabulary(by_trained, Vocabulary(*_fields(words), select_by="trained"), new)
    after = answer(by_trained)
    assert torch.equal(after.boxes_cxcywh, before.boxes_cxcywh)
    torch.testing.assert_close(after.logits[..., [0, 2]], before.logits[..., [5, 3]])


def _fields(words: Vocabulary) -> tuple:
    return words.names, words.columns, words.extends


def test_linear_classifiers_serve_their_own_classes_in_any_order(models):
    model = models("linear")
    before = answer(model)
    words = Vocabulary(("oar", "cat"), (6, 3), extends=False, select_by="trained")
    check_words(model, words)
    change_vocabulary(model, words, None)
    torch.testing.assert_close(answer(model).logits, before.logits[..., [6, 3]])
    change_vocabulary(model, Vocabulary(("cat",), (1,), extends=False, select_by="names"), None)
    assert answer(model).logits.shape[-1] == 1


def test_a_model_without_texts_scores_no_other_word(models):
    words = Vocabulary(("cat", "zebra"), (3, -1), extends=False, select_by="names")
    with pytest.raises(UserError, match=r"'zebra' is not a class of this checkpoint.*no text classifier"):
        check_words(models("linear"), words)
    check_words(models("plain"), words)
