import math

import pytest
import torch

from models.dino.federated import ClassSample, FederatedClasses, federated_weights
from tests.processes import run_on_ranks
from util import distributed

WEIGHTS = [0.0, 3.0, 2.0, 1.0, 1.0, 0.0, 5.0, 1.0]


def labels(*values: int) -> torch.Tensor:
    """Of one set."""
    return torch.tensor([values], dtype=torch.int64)


def chosen(sample: ClassSample) -> list[list[int]]:
    """The classes of each set, in order."""
    rows = zip(sample.columns, sample.valid, strict=True)
    return [sorted(columns[valid].tolist()) for columns, valid in rows]


def draw_one(draw: FederatedClasses, *values: int) -> list[int]:
    (columns,) = chosen(draw(labels(*values), len(values)))
    return columns


def test_weights_are_square_roots_of_image_counts():
    assert federated_weights([100, 1, 0]) == [10.0, 1.0, 0.0]


@pytest.mark.parametrize("number", [1, 3, 4, 5])
def test_present_classes_are_in_and_others_fill_up(number):
    draw = FederatedClasses(WEIGHTS, number)
    for _ in range(30):
        columns = draw_one(draw, 4, 2, 4, 7)
        assert {2, 4, 7} <= set(columns)
        assert len(columns) == len(set(columns)) == max(number, 3)


def test_sets_draw_each_their_own():
    draw = FederatedClasses([1.0] * 200, 10)
    first, second = chosen(draw(torch.tensor([[3, 4], [5, 5]]), 2))
    assert {3, 4} <= set(first) and 5 in second
    assert len(first) == len(second) == 10 and first != second


def test_a_class_of_weight_zero_is_in_only_where_present():
    draw = FederatedClasses(WEIGHTS, 100)
    assert draw_one(draw, 2) == [1, 2, 3, 4, 6, 7]
    assert draw_one(draw, 0) == [0, 1, 2, 3, 4, 6, 7]


def test_without_any_candidate_the_present_ones_are_all():
    assert draw_one(FederatedClasses([0.0, 0.0, 0.0], 50), 1) == [1]
    assert draw_one(FederatedClasses([0.0, 0.0, 0.0], 50)) == []


def test_a_call_without_targets_still_judges():
    assert len(draw_one(FederatedClasses(WEIGHTS, 4))) == 4


def test_candidates_alone_fill_up_the_sample():
    draw = FederatedClasses(WEIGHTS, 4)
    candidates = torch.tensor([True, False, True, False, False, True, False, True])
    for _ in range(10):
        # Class 5 is a candidate of weight 0, class 6 is no candidate but present.
        assert chosen(draw(labels(6), 1, candidates)) == [[2, 6, 7]]


def test_the_number_of_columns_is_known_without_their_values():
    draw = FederatedClasses([1.0] * 20, 4)
    shapes = {tuple(draw(labels(*values), 6).columns.shape) for values in [(1,) * 6, (1, 2, 3, 4, 5, 6)]}
    assert shapes == {(1, 6)}


def test_chance_follows_the_weights_without_replacement():
    torch.manual_seed(0)
    draw = FederatedClasses([1.0, 2.0, 4.0, 0.0], 2)
    none = torch.zeros(20000, 0, dtype=torch.int64)
    counts = torch.zeros(4)
    for columns in chosen(draw(none, 0)):
        counts[columns] += 1
    # The chance to be first, and to be second behind each other one.
    first = [w / 7 for w in (1, 2, 4)]
    expected = [
        p + sum(q * w / (7 - v) for j, (q, v) in enumerate(zip(first, (1, 2, 4), strict=True)) if j != i)
        for i, (p, w) in enumerate(zip(first, (1, 2, 4), strict=True))
    ]
    assert (counts / 20000).tolist() == pytest.approx([*expected, 0], abs=0.015)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="negative"):
        FederatedClasses([1.0, -1.0], 3)


def gathered_columns() -> dict:
    """What each rank draws when the ranks' own random states differ."""
    torch.manual_seed(distributed.rank())
    mine = (1, 3) if distributed.is_main() else ()
    gathering = FederatedClasses(WEIGHTS, 5, gather=True)
    # Rank 0 judges class 4 alone, rank 1 class 7.
    candidates = torch.arange(len(WEIGHTS)) == (4 if distributed.is_main() else 7)
    alone = FederatedClasses([math.sqrt(n) for n in range(200)], 20)
    # Ranks have as many pairs as boxes, so not equally many.
    return {
        "gathered": [draw_one(gathering, *mine) for _ in range(8)],
        "full": draw_one(FederatedClasses(WEIGHTS, 1, gather=True), *mine),
        "candidates": chosen(gathering(labels(*mine), len(mine), candidates)),
        "alone": draw_one(alone),
    }


def test_gathered_columns_are_the_same_on_every_rank():
    first, second = run_on_ranks(2, gathered_columns)
    assert first["gathered"] == second["gathered"]
    assert all({1, 3} <= set(columns) and len(columns) == 5 for columns in second["gathered"])
    assert len({tuple(columns) for columns in first["gathered"]}) > 1
    assert first["full"] == second["full"] == [1, 3]
    assert first["candidates"] == second["candidates"] == [[1, 3, 4, 7]]
    assert first["alone"] != second["alone"]


@pytest.mark.parametrize("gather", [False, True])
def test_the_draw_goes_on_from_the_state_of_torchs_generator(gather):
    draw = FederatedClasses([1.0] * 50, number=8, gather=gather)
    draw_one(draw, 1)
    state = torch.get_rng_state()
    expected = draw_one(draw, 2)
    torch.set_rng_state(state)
    assert draw_one(FederatedClasses([1.0] * 50, number=8, gather=gather), 2) == expected
