import itertools

import pytest
import torch

from models.dino.matcher import HungarianMatcher, Matches
from models.dino.output import LayerOutput, LayerStack
from tests.models.tiny import batch_of, target, targets
from util.boxes import box_cxcywh_to_xyxy, generalized_iou

CLASSES = 7


def layer(queries: int = 6, batch: int = 2, seed: int = 0, dtype=torch.float64) -> LayerOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, queries, CLASSES, generator=generator).to(dtype)
    return LayerOutput(logits, (0.1 + 0.5 * torch.rand(batch, queries, 4, generator=generator)).to(dtype))


def match(outputs, given, one_class=None, weights=(2.0, 5.0, 2.0)) -> list[Matches]:
    stacks = [LayerStack.of(output) for output in outputs]
    found = HungarianMatcher(*weights)(stacks, given, one_class or [False] * len(outputs))
    return [found[i] for i in range(len(outputs))]


def rows(matches: Matches) -> set[tuple[int, int, int]]:
    columns = (matches.image, matches.query, matches.target)
    return set(zip(*(c.tolist() for c in columns), strict=True))


def slow_cost(output: LayerOutput, image: int, query: int, box, label: int, weights) -> float:
    """The cost of one pair, by the formula."""
    p = float(output.logits[image, query, label].sigmoid())
    right = 0.25 * (1 - p) ** 2 * -torch.tensor(p + 1e-8).double().log()
    wrong = 0.75 * p**2 * -torch.tensor(1 - p + 1e-8).double().log()
    ours = output.boxes_cxcywh[image, query]
    overlap = generalized_iou(box_cxcywh_to_xyxy(ours), box_cxcywh_to_xyxy(box))
    distance = (ours - box).abs().sum()
    return float(weights[0] * (right - wrong) + weights[1] * distance - weights[2] * overlap)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_assignment_is_the_cheapest_of_all(seed):
    weights = (2.0, 5.0, 2.0)
    output = layer(queries=5, batch=1, seed=seed)
    (given,) = targets((3,), seed=seed, dtype=torch.float64)
    costs = [
        [slow_cost(output, 0, q, given.boxes_cxcywh[n], int(given.labels[n]), weights) for n in range(3)]
        for q in range(5)
    ]
    cheapest = min(
        itertools.permutations(range(5), 3), key=lambda chosen: sum(costs[q][n] for n, q in enumerate(chosen))
    )
    (found,) = match([output], batch_of(given))
    assert rows(found) == {(0, q, n) for n, q in enumerate(cheapest)}


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_every_cost_has_its_weight(kept):
    weights = [0.0, 0.0, 0.0]
    weights[kept] = 3.0
    output = layer(queries=4, batch=1)
    (given,) = targets((2,), dtype=torch.float64)
    (table,) = HungarianMatcher(*weights).costs([LayerStack.of(output)], batch_of(given), [False])
    for q, n in itertools.product(range(4), range(2)):
        expected = slow_cost(output, 0, q, given.boxes_cxcywh[n], int(given.labels[n]), weights)
        assert table[n, q].item() == pytest.approx(expected, abs=1e-6)


def test_a_batch_is_matched_as_its_images_are():
    outputs, given = [layer(seed=0), layer(seed=1)], targets((3, 2), dtype=torch.float64)
    together = match(outputs, given)
    for number, output in enumerate(outputs):
        expected = set()
        for image, first in ((0, 0), (1, 3)):
            one = LayerOutput(output.logits[image : image + 1], output.boxes_cxcywh[image : image + 1])
            (alone,) = match([one], batch_of(given[image]))
            expected |= {(image, q, first + n) for _, q, n in rows(alone)}
        assert rows(together[number]) == expected


def test_one_class_looks_at_the_first_column_alone():
    output, given = layer(), targets((3, 2), dtype=torch.float64)
    changed = LayerOutput(output.logits.clone(), output.boxes_cxcywh)
    changed.logits[..., 1:] = 50.0
    (first,) = match([output], given, [True], weights=(1.0, 0.0, 0.0))
    (second,) = match([changed], given, [True], weights=(1.0, 0.0, 0.0))
    (other,) = match([output], given, [False], weights=(1.0, 0.0, 0.0))
    assert rows(first) == rows(second) != rows(other)


def test_a_image_without_boxes():
    (found,) = match([layer(batch=3)], targets((2, 0, 1), dtype=torch.float64))
    assert sorted((p, n) for p, _, n in rows(found)) == [(0, 0), (0, 1), (2, 2)]


def test_no_boxes_at_all():
    found = match([layer(), layer(seed=1)], targets((0, 0), dtype=torch.float64))
    assert [len(m) for m in found] == [0, 0]
    assert all(t.dtype == torch.int64 for m in found for t in (m.image, m.query, m.target))


def test_more_boxes_than_queries_leave_boxes_unmatched():
    (found,) = match([layer(queries=3, batch=1)], targets((8,), dtype=torch.float64))
    assert sorted(found.query.tolist()) == [0, 1, 2]
    assert len(set(found.target.tolist())) == 3


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_diverged_predictions_are_left_to_the_loss(wrong):
    output = layer(batch=1)
    output.logits[0, 2], output.boxes_cxcywh[0, 2] = wrong, wrong
    (found,) = match([output], batch_of(target([[0.5, 0.5, 0.2, 0.2]], [1], dtype=torch.float64)))
    assert len(found) == 1 and found.query.item() != 2
    output.boxes_cxcywh[:] = wrong
    assert len(match([output], targets((3,), dtype=torch.float64))[0]) == 3


def test_half_precision_is_matched_in_float32():
    output = layer(dtype=torch.bfloat16, batch=1)
    given = targets((2,))
    table = HungarianMatcher(2, 5, 2).costs([LayerStack.of(output)], given, [False])
    assert table.dtype == torch.float32


def test_costs_need_a_weight():
    with pytest.raises(ValueError, match="weight"):
        HungarianMatcher(0, 0, 0)
