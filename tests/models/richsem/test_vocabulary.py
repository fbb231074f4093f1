"""Other words for a trained model, on the real detector in miniature."""

import copy

import pytest
import torch

from models.richsem.vocabulary import ClassRows, NewRows, Vocabulary, change_vocabulary, check_words
from tests.models.tiny import EMBEDDING, NAMES, baseline_config, build, make_images, tiny_clip, tiny_config
from util.errors import UserError

LOG_SCALE = tiny_clip().logit_scale.detach()
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


def extended(words, select_by="names") -> Vocabulary:
    columns = (*range(len(NAMES)), *(-1 for _ in words))
    return Vocabulary((*NAMES, *words), columns, extends=True, select_by=select_by)


def text(raw) -> NewRows:
    return NewRows.of_text(raw, LOG_SCALE)


@pytest.mark.parametrize("select_by", ["names", "trained"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_added_words_change_no_bit_of_a_trained_class(models, kind, select_by):
    model = models(kind)
    before = answer(model)
    words = extended(("a", "b", "c"), select_by)
    after = answer(change_vocabulary(model, words, text(rows(3)), one_class_encoder="encoder" in kind))
    passes = 2 if select_by == "names" and "encoder" not in kind else 1
    assert after.logits.shape == (2, passes * 12, len(NAMES) + 3)
    assert torch.equal(after.logits[:, :12, : len(NAMES)], before.logits)
    assert torch.equal(after.boxes_cxcywh[:, :12], before.boxes_cxcywh)
    if passes == 2:
        assert (after.logits[:, :12, len(NAMES) :] == -torch.inf).all()
        assert (after.logits[:, 12:, : len(NAMES)] == -torch.inf).all()


def test_added_words_answer_as_if_they_alone_were_asked_for(models):
    alone, beside, raw = models("plain"), models("plain"), 5 * rows(4)
    words = Vocabulary(("a", "b", "c", "d"), (-1,) * 4, extends=False)
    expected = answer(change_vocabulary(alone, words, text(raw)))
    found = answer(change_vocabulary(beside, extended(words.names), text(raw)))
    assert torch.equal(found.logits[:, 12:, len(NAMES) :], expected.logits)
    assert torch.equal(found.boxes_cxcywh[:, 12:], expected.boxes_cxcywh)


def test_an_added_row_scores_as_a_trained_row_would(models):
    model = models("plain")
    text_of = model.head.classifier.text
    rows_of = NewRows.of_text(text_of.raw[2:3], text_of.log_scale)
    logits = answer(change_vocabulary(model, extended(("again",), "trained"), rows_of)).logits
    torch.testing.assert_close(logits[..., -1], logits[..., 2])


def test_rows_that_are_no_texts_stand_among_those_that_are(models):
    model, plain = models("plain"), models("plain")
    raw = rows(3)
    texts = text(raw)
    linear = ClassRows.of_text(raw[1:2], LOG_SCALE)
    mixed = NewRows(linear, linear).merged(text(raw[[0, 2]]), (-1, 0, -1))
    words = Vocabulary(("a", "cat", "b", "c"), (-1, 3, -1, -1), extends=False)
    expected = answer(change_vocabulary(plain, words, texts))
    found = answer(change_vocabulary(model, words, mixed))
    torch.testing.assert_close(found.logits, expected.logits)
    queries = torch.randn(4, 32)
    classifier = model.query_selection.classifier
    torch.testing.assert_close(classifier.ranking()(queries), classifier(queries).amax(-1))


def test_names_replace_the_rows_in_their_order(models):
    model = models("plain")
    raw, new = model.head.classifier.text.raw.clone(), rows(1)
    words = Vocabulary(("kite", "new", "cat"), (5, -1, 3), extends=False)
    before = answer(model)
    assert model.denoising is not None
    model = change_vocabulary(model, words, text(new))
    assert torch.equal(model.head.classifier.text.raw, torch.stack((raw[5], new[0], raw[3])))
    assert torch.equal(model.query_selection.classifier.text.raw, raw[[5, 3]])
    assert torch.equal(model.new_selection.classifier.text.raw, new)
    assert answer(model).logits.shape == (2, 24, 3)
    by_trained = models("plain")
    change_vocabulary(by_trained, Vocabulary(*_fields(words), select_by="trained"), text(new))
    after = answer(by_trained)
    assert torch.equal(after.boxes_cxcywh, before.boxes_cxcywh)
    torch.testing.assert_close(after.logits[..., [0, 2]], before.logits[..., [5, 3]])


def _fields(words: Vocabulary) -> tuple:
    return words.names, words.columns, words.extends


def test_new_words_leave_the_trained_words_beside_them_alone(models):
    alone, beside = models("plain"), models("plain")
    trained = answer(change_vocabulary(alone, Vocabulary(("cat", "kite"), (3, 5), extends=False), None))
    words = Vocabulary(("a", "cat", "b", "kite"), (-1, 3, -1, 5), extends=False)
    both = answer(change_vocabulary(beside, words, text(5 * rows(2))))
    assert torch.equal(both.boxes_cxcywh[:, :12], trained.boxes_cxcywh)
    torch.testing.assert_close(both.logits[:, :12, [1, 3]], trained.logits)
    assert both.logits[:, 12:, [0, 2]].isfinite().all()
    assert (both.logits[:, 12:, [1, 3]] == -torch.inf).all()


def test_the_two_selections_have_hooks_of_their_own(models):
    model = change_vocabulary(models("plain"), extended(("a",)), text(rows(1)))
    assert model.selections == (model.query_selection, model.new_selection)
    calls = []
    model.query_selection.register_forward_hook(lambda module, *_: calls.append(module))
    answer(model)
    assert calls == [model.query_selection]


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


def test_an_exported_graph_has_no_autocast_of_rows():
    """An exported file (.pt2) with a region of autocast does not load."""

    class Scores(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = ClassRows(rows(2), torch.zeros(2))

        def forward(self, unit):
            return self.rows.logits(unit)

    program = torch.export.export(Scores().eval(), (rows(3),))
    assert "autocast" not in str(program.graph)
