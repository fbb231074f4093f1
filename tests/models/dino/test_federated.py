import math

import pytest
import torch

from models.dino.federated import FederatedClasses, federated_weights
from tests.processes import run_on_ranks
from util import distributed

WEIGHTS = [0.0, 3.0, 2.0, 1.0, 1.0, 0.0, 5.0, 1.0]


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_weights_are_square_roots_of_image_counts():
    assert federated_weights([100, 1, 0]) == [10.0, 1.0, 0.0]


@pytest.mark.parametrize("number", [1, 3, 4, 5])
def test_present_classes_are_in_and_others_fill_up(number):
    draw = FederatedClasses(WEIGHTS, number)
    for _ in range(30):
        columns = draw(labels(4, 2, 4, 7)).tolist()
        assert {2, 4, 7} <= set(columns)
        assert len(columns) == max(number, 3)
        assert columns == sorted(set(columns))


def test_a_class_of_weight_zero_is_judged_only_where_present():
    draw = FederatedClasses(WEIGHTS, 100)
    assert draw(labels(2)).tolist() == [1, 2, 3, 4, 6, 7]
    assert draw(labels(0)).tolist() == [0, 1, 2, 3, 4, 6, 7]


def test_without_any_candidate_the_present_ones_are_all():
    assert FederatedClasses([0.0, 0.0, 0.0], 50)(labels(1)).tolist() == [1]
    assert FederatedClasses([0.0, 0.0, 0.0], 50)(labels()).tolist() == []


def test_a_call_without_targets_still_judges():
    assert len(FederatedClasses(WEIGHTS, 4)(labels())) == 4


def test_chance_follows_the_weights():
    torch.manual_seed(0)
    draw = FederatedClasses([1.0, 2.0, 4.0, 0.0], 1)
    counts = torch.zeros(4)
    for _ in range(2000):
        counts[draw(labels())] += 1
    assert (counts / 2000).tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7, 0], abs=0.04)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="negative"):
        FederatedClasses([1.0, -1.0], 3)


def gathered_columns() -> dict:
    """What each rank draws when the ranks' own random states differ."""
    torch.manual_seed(distributed.rank())
    mine = labels(1, 3) if distributed.is_main() else labels()
    gathering = FederatedClasses(WEIGHTS, 5, gather=True)
    alone = FederatedClasses([math.sqrt(n) for n in range(200)], 20)
    return {
        "gathered": [gathering(mine).tolist() for _ in range(8)],
        "full": FederatedClasses(WEIGHTS, 1, gather=True)(mine).tolist(),
        "alone": alone(labels()).tolist(),
    }


def test_gathered_columns_are_the_same_on_every_rank():
    first, second = run_on_ranks(2, gathered_columns)
    assert first["gathered"] == second["gathered"]
    assert all({1, 3} <= set(columns) and len(columns) == 5 for columns in second["gathered"])
    assert len({tuple(columns) for columns in first["gathered"]}) > 1
    assert first["full"] == second["full"] == [1, 3]
    assert first["alone"] != second["alone"]


@pytest.mark.parametrize("gather", [False, True])
def test_the_draw_goes_on_from_the_state_of_torchs_generator(gather):
    draw = FederatedClasses([1.0] * 50, number=8, gather=gather)
    draw(labels(1))
    state = torch.get_rng_state()
    expected = draw(labels(2))
    torch.set_rng_state(state)
    assert torch.equal(FederatedClasses([1.0] * 50, number=8, gather=gather)(labels(2)), expected)
