import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.dino.criterion import PredictionSet
from models.dino.federated import ClassSample
from models.dino.matcher import Matches
from models.dino.output import LayerOutput
from models.richsem.classifier import TextEmbeddings
from models.richsem.distillation import DistillationLoss
from models.richsem.teacher import SemanticTargets, Teacher
from tests.models.tiny import EMBEDDING, make_images, targets, tiny_clip

CLASSES, QUERIES, BATCH = 7, 5, 2
# (image, query, number of the box in the batch)
PAIRS = ((0, 3, 0), (0, 1, 1), (1, 4, 2))


@pytest.fixture(scope="module")
def semantic() -> SemanticTargets:
    teacher = Teacher(copy.deepcopy(tiny_clip().visual)).double()
    return teacher(make_images(dtype=torch.float64), targets((2, 1), dtype=torch.float64))


@pytest.fixture(scope="module")
def text() -> TextEmbeddings:
    generator = torch.Generator().manual_seed(1)
    return TextEmbeddings(torch.randn(CLASSES, EMBEDDING, generator=generator), math.log(8)).double()


def prediction_set(sample: ClassSample | None = None, pairs=PAIRS, embedding: bool = True) -> PredictionSet:
    generator = torch.Generator().manual_seed(2)
    unit = torch.randn(BATCH, QUERIES, EMBEDDING, generator=generator).double()
    unit = (unit / unit.norm(dim=-1, keepdim=True)).requires_grad_()
    references = 0.2 + 0.3 * torch.rand(BATCH, QUERIES, 4, generator=generator).double()
    outputs = LayerOutput(
        torch.zeros(BATCH, QUERIES, CLASSES),
        boxes_cxcywh=references,
        reference_boxes=references,
        embedding=unit if embedding else None,
    )
    matches = Matches(*torch.tensor(pairs, dtype=torch.int64).view(-1, 3).unbind(1))
    given = targets((2, 1), dtype=torch.float64)
    return PredictionSet(
        kind="decoder",
        layer=0,
        is_last=True,
        outputs=outputs,
        matches=matches,
        labels=given.labels[matches.target],
        boxes_cxcywh=given.boxes_cxcywh[matches.target],
        sample=sample,
        num_boxes=torch.tensor(4.0).double(),
    )


def sample_of(columns: list[int], valid: list[bool]) -> ClassSample:
    return ClassSample(torch.tensor(columns), torch.tensor(valid))


def softmax(scores: list[float]) -> list[float]:
    largest = max(scores)
    powers = [math.exp(s - largest) for s in scores]
    return [p / sum(powers) for p in powers]


def slow_distribution(vector: Tensor, text: TextEmbeddings, columns: list[int]) -> list[float]:
    scale = float(text.log_scale.exp())
    cosines = [float(vector @ text.raw[c] / text.raw[c].norm() / vector.norm()) for c in columns]
    return softmax([scale * cosine for cosine in cosines])


def slow_row(student, teacher, text, kind, columns, entropy) -> float:
    """The loss of one pair, by the formula."""
    if kind == "clip_l1":
        value = sum(abs(float(a - b)) for a, b in zip(student, teacher, strict=True))
    else:
        p, t = (slow_distribution(v, text, columns) for v in (student, teacher))
        value = sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, t, strict=True))
    if entropy:
        whole = slow_distribution(teacher, text, list(range(CLASSES)))
        value *= 2 * -sum(t * math.log(t) for t in whole) / math.log(CLASSES)
    return value


def slow_loss(text, semantic, kind, objective, entropy=False, columns=None) -> float:
    given = prediction_set()
    columns = list(range(CLASSES)) if columns is None else columns
    references = given.outputs.reference_boxes
    if objective == "pred_all":
        pairs = [(b, q, None) for b in range(BATCH) for q in range(QUERIES)]
        num_boxes = BATCH * QUERIES
    else:
        pairs, num_boxes = PAIRS, 4.0
    total = 0.0
    for image, query, number in pairs:
        if objective == "gt":
            seen = semantic.ground_truth[number]
        else:
            seen = semantic.embed_boxes(references[image, query][None], torch.tensor([image]))[0]
        total += slow_row(given.outputs.embedding.detach()[image, query], seen, text, kind, columns, entropy)
    return total / num_boxes


def loss(
    text, semantic, given: PredictionSet, kind="clip_logits", objective="gt", entropy=False, federated=False
):
    return DistillationLoss(
        text, kind=kind, objective=objective, entropy_weight=entropy, federated=federated
    )(given, targets((2, 1)), semantic)["loss_distill"]


@pytest.mark.parametrize("kind", ["clip_logits", "clip_l1"])
@pytest.mark.parametrize("objective", ["gt", "pred", "pred_all"])
@pytest.mark.parametrize("entropy", [False, True])
def test_every_option_against_the_formula(text, semantic, kind, objective, entropy):
    found = loss(text, semantic, prediction_set(), kind, objective, entropy)
    assert found.item() == pytest.approx(slow_loss(text, semantic, kind, objective, entropy), rel=1e-9)
    assert found > 0


@pytest.mark.parametrize("entropy", [False, True])
def test_federated_columns_cut_both_distributions_but_not_the_entropy(text, semantic, entropy):
    columns = [0, 2, 5]
    given = prediction_set(sample_of([2, 1, 5, 0], [True, False, True, True]))
    found = loss(text, semantic, given, entropy=entropy, federated=True)
    expected = slow_loss(text, semantic, "clip_logits", "gt", entropy, columns)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    found.backward()
    assert torch.isfinite(given.outputs.embedding.grad).all()


@pytest.mark.parametrize("objective", ["gt", "pred"])
def test_pairs_that_are_not_taught_are_left_out(text, semantic, objective):
    taught = torch.tensor([True, False, True])
    given = replace(prediction_set(), taught=taught)
    found = loss(text, semantic, given, objective=objective)
    kept = prediction_set(pairs=[pair for pair, kept in zip(PAIRS, taught, strict=True) if kept])
    assert found.item() == pytest.approx(loss(text, semantic, kept, objective=objective).item(), rel=1e-12)
    assert found < loss(text, semantic, prediction_set(), objective=objective)


@pytest.mark.parametrize("objective", ["gt", "pred"])
def test_boxes_that_the_teacher_names_otherwise_can_be_left_out(text, semantic, objective):
    given = prediction_set()
    images, queries = (torch.tensor(column) for column in zip(*[(i, q) for i, q, _ in PAIRS], strict=True))
    seen = semantic.ground_truth
    if objective == "pred":
        seen = semantic.embed_boxes(given.outputs.reference_boxes[images, queries], images)
    labels = text.logits(seen).argmax(-1)
    labels[1] = (labels[1] + 1) % CLASSES
    part = DistillationLoss(text, kind="clip_logits", objective=objective, named_only=True)
    found = part(replace(given, labels=labels), targets((2, 1)), semantic)["loss_distill"]
    kept = prediction_set(pairs=(PAIRS[0], PAIRS[2]))
    assert found.item() == pytest.approx(loss(text, semantic, kept, objective=objective).item(), rel=1e-12)
    assert 0 < found < loss(text, semantic, given, objective=objective)


def test_without_the_option_the_federated_columns_do_not_matter(text, semantic):
    with_columns = loss(text, semantic, prediction_set(sample_of([0, 2], [True, True])), federated=False)
    assert with_columns.item() == loss(text, semantic, prediction_set()).item()


@pytest.mark.parametrize("kind", ["clip_logits", "clip_l1"])
def test_a_student_that_says_what_the_teacher_says_has_no_loss(text, semantic, kind):
    given = prediction_set()
    with torch.no_grad():
        for image, query, number in PAIRS:
            given.outputs.embedding[image, query] = semantic.ground_truth[number]
    assert loss(text, semantic, given, kind).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("objective", "rows"), [("gt", 3), ("pred", 3), ("pred_all", 10)])
def test_gradients_reach_the_distilled_queries_alone(text, semantic, objective, rows):
    given = prediction_set()
    loss(text, semantic, given, objective=objective).backward()
    touched = given.outputs.embedding.grad.abs().sum(-1) > 0
    assert touched.sum() == rows
    if rows == 3:
        assert {tuple(place) for place in touched.nonzero().tolist()} == {(p, q) for p, q, _ in PAIRS}


def test_the_references_are_not_learnt_from(text, semantic):
    given = prediction_set()
    given.outputs.reference_boxes.requires_grad_()
    loss(text, semantic, given, objective="pred").backward()
    assert given.outputs.reference_boxes.grad is None


@pytest.mark.parametrize("objective", ["gt", "pred"])
def test_without_pairs_it_is_a_zero_that_reaches_the_branch(text, semantic, objective):
    given = prediction_set(pairs=())
    value = loss(text, semantic, given, objective=objective, entropy=True)
    value.backward()
    assert value.item() == 0
    assert given.outputs.embedding.grad is not None


def test_groups_without_the_branch_and_runs_without_a_teacher_have_none(text, semantic):
    part = DistillationLoss(text, kind="clip_logits", objective="gt")
    assert part(prediction_set(embedding=False), targets((2, 1)), semantic) == {}
    assert part(prediction_set(), targets((2, 1)), None) == {}
