import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.dino.layers import MLP
from models.richsem.classifier import (
    LanguageClassifier,
    TextEmbeddings,
    TextLabelEmbedding,
    init_focal_prior_,
    unit_vectors,
)

CLASSES, WIDTH, DIM = 5, 16, 8


@pytest.fixture
def text() -> TextEmbeddings:
    torch.manual_seed(0)
    return TextEmbeddings(20 * torch.randn(CLASSES, WIDTH), math.log(100))


def test_scores_are_scaled_cosines(text):
    classifier = LanguageClassifier(nn.Linear(DIM, WIDTH, bias=False), text)
    queries = torch.randn(2, 3, DIM)
    scores = classifier(queries)
    for b in range(2):
        for q in range(3):
            projected = classifier.projection.weight @ queries[b, q]
            for c in range(CLASSES):
                cosine = F.cosine_similarity(projected, text.raw[c], dim=0)
                assert scores[b, q, c].item() == pytest.approx(100 * cosine.item(), abs=1e-3)


def test_lengths_of_texts_and_queries_do_not_matter(text):
    classifier = LanguageClassifier(nn.Linear(DIM, WIDTH, bias=False), text)
    queries = torch.randn(4, DIM)
    longer = TextEmbeddings(text.raw * torch.rand(CLASSES, 1).add(0.5), text.log_scale)
    assert torch.allclose(classifier(queries), classifier(3 * queries), atol=1e-3)
    assert torch.allclose(
        classifier(queries), LanguageClassifier(classifier.projection, longer)(queries), atol=1e-3
    )


def test_the_vocabulary_is_kept_but_never_learnt(text):
    classifier = LanguageClassifier(nn.Linear(DIM, WIDTH), text)
    assert {"text.raw", "text.log_scale"} <= classifier.state_dict().keys()
    assert {name for name, _ in classifier.named_parameters()} == {"projection.weight", "projection.bias"}


def test_it_holds_a_copy_of_its_own():
    raw = torch.randn(CLASSES, WIDTH, dtype=torch.float64)
    text = TextEmbeddings(raw, torch.tensor(2.0))
    raw.zero_()
    assert text.raw.abs().sum() > 0
    assert text.raw.dtype == text.log_scale.dtype == torch.float32


@pytest.mark.parametrize("projection", [nn.Linear(DIM, WIDTH, bias=False), nn.Linear(DIM, WIDTH)])
def test_what_losses_read_is_what_evaluation_says(text, projection):
    """Columns of all layers together, or of each its own; the same gradients too."""
    classifier = LanguageClassifier(projection, text).double()
    queries = torch.randn(2, 3, 5, DIM, dtype=torch.float64, requires_grad=True)
    queries.data[0, 0, 0] = 0
    own = torch.tensor([[4, 1], [0, 4]])
    all_classes, features = classifier(queries), classifier.features(queries)
    expected = {
        "all": (all_classes, None),
        "same": (all_classes[..., own[0]], own[0]),
        "own": (torch.stack([x[..., c] for x, c in zip(all_classes, own, strict=True)]), own),
    }
    wanted = [queries, *classifier.parameters()]
    for logits, columns in expected.values():
        found = classifier.score(features, columns)
        torch.testing.assert_close(found, logits, rtol=1e-9, atol=1e-9)
        direction = torch.randn_like(found)
        direction[0, 0, 0] = 0  # The cosine of nothing has no gradient.
        pairs = (torch.autograd.grad(x, wanted, direction, retain_graph=True) for x in (found, logits))
        for a, b in zip(*pairs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_read_scores_are_float32_under_autocast(text):
    classifier = LanguageClassifier(nn.Linear(DIM, WIDTH, bias=False), text)
    queries = torch.randn(50, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        found = classifier.score(classifier.features(queries), torch.tensor([4, 1]))
    torch.testing.assert_close(found, classifier(queries)[:, [4, 1]], rtol=1e-5, atol=1e-3)


def test_unit_rows_follow_the_embeddings(text):
    assert text.unit is text.unit
    text.load_state_dict({**text.state_dict(), "raw": torch.randn_like(text.raw)})
    assert torch.equal(text.unit, F.normalize(text.raw, dim=-1))
    assert text.double().unit.dtype == torch.float64


def test_scores_are_float32_under_autocast(text):
    """16 bit cosines would be off by up to 0.4 at a scale of 100."""
    classifier = LanguageClassifier(nn.Linear(DIM, WIDTH, bias=False), text)
    queries = torch.randn(50, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        projected = classifier.projection(queries)
        scores = classifier(queries)
    assert projected.dtype == torch.bfloat16
    assert scores.dtype == torch.float32
    exact = 100 * F.normalize(projected.double(), dim=-1) @ F.normalize(text.raw.double(), dim=-1).T
    assert torch.allclose(scores.double(), exact, atol=1e-3)


def test_best_is_the_best_class_and_only_ranks_in_16_bit(text):
    classifier = LanguageClassifier(nn.Linear(DIM, WIDTH, bias=False), text)
    queries = torch.randn(2, 30, DIM)
    queries[0, 0] = 0
    exact = classifier(queries).amax(-1)
    assert torch.allclose(classifier.ranking()(queries), exact, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(classifier.ranking()(queries).float(), exact, atol=1.5)
    double = copy.deepcopy(classifier).double()
    exact = double(queries.double()).amax(-1)
    assert torch.allclose(double.ranking()(queries.double()), exact, atol=1e-9)


def test_label_embeddings_come_from_raw_texts(text):
    labels = TextLabelEmbedding(DIM, text)
    found = labels(torch.tensor([3, 0, 3]))
    assert found.shape == (3, DIM)
    assert torch.allclose(found[1], labels.projection.weight @ text.raw[0], atol=1e-4)
    assert labels.projection.bias is None
    assert labels(torch.zeros(0, dtype=torch.int64)).shape == (0, DIM)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_unit_vectors_have_length_1_in_float32_at_least(dtype):
    found = unit_vectors(nn.Linear(DIM, WIDTH).to(dtype), torch.randn(4, DIM).to(dtype))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.norm(dim=-1).tolist() == pytest.approx([1] * 4, abs=1e-5)


@pytest.mark.parametrize("shared", [0.0, 2.0])
@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_it_starts_at_the_focal_losss_prior(projection, shared):
    """Texts around zero, or all with one component in common as OpenAI's have, at OpenAI's scale."""
    torch.manual_seed(0)
    width, dim = 512, 32
    raw = F.normalize(torch.randn(100, width), dim=-1) + shared * F.normalize(torch.randn(width), dim=0)
    made = {"linear": nn.Linear(dim, width, bias=False), "mlp": MLP(dim, dim, width, depth=2)}[projection]
    classifier = LanguageClassifier(made, TextEmbeddings(raw, math.log(100)))
    norm = nn.LayerNorm(dim)
    queries = torch.randn(500, dim)
    with torch.no_grad():
        before = classifier(norm(queries)).sigmoid().mean()
        init_focal_prior_(classifier, norm)
        after = classifier(norm(queries))
    assert before > 0.3
    assert after.mean().item() == pytest.approx(-math.log(99), rel=0.35)
    if shared:
        assert after.sigmoid().mean() < 0.1
