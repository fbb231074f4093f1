import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from engine.build import build_state
from engine.schedule import (
    cosine_factor,
    go_to_step,
    multi_step_factor,
    one_cycle_factor,
    resumed_step,
    step_factor,
    with_warmup,
)
from tests.engine.toys import config
from util.errors import UserError


def sgd(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates(schedule: LambdaLR, steps: int) -> list[list[float]]:
    found = []
    for _ in range(steps):
        found.append([g["lr"] for g in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return found


def reference(scheduler_class, steps: int, every: int, lr: float, **arguments) -> list[float]:
    """Learning rates of torch's scheduler, stepped after each `every` optimizer steps."""
    optimizer = sgd(lr)
    scheduler = scheduler_class(optimizer, **arguments)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step()
    return found


def test_step_equals_torch():
    found = rates(LambdaLR(sgd(0.1, 0.01), step_factor(3, lr_drop=2)), 18)
    expected = reference(torch.optim.lr_scheduler.StepLR, 18, 3, 0.1, step_size=2)
    assert [r[0] for r in found] == pytest.approx(expected)
    assert [r[1] for r in found] == pytest.approx([e / 10 for e in expected])


def test_multi_step_equals_torch():
    found = rates(LambdaLR(sgd(0.1), multi_step_factor(3, (1, 4))), 18)
    expected = reference(torch.optim.lr_scheduler.MultiStepLR, 18, 3, 0.1, milestones=[1, 4])
    assert [r[0] for r in found] == pytest.approx(expected)


@pytest.mark.parametrize("total", [20, 47])
def test_one_cycle_equals_torch(total):
    found = rates(LambdaLR(sgd(0.1), one_cycle_factor(total)), total)
    arguments = {"max_lr": 0.1, "total_steps": total, "pct_start": 0.2, "cycle_momentum": False}
    expected = reference(torch.optim.lr_scheduler.OneCycleLR, total, 1, 0.1, **arguments)
    assert [r[0] for r in found] == pytest.approx(expected, rel=1e-9)


def test_one_cycle_of_few_steps_is_finite():
    for total in (1, 2, 3, 5):
        factor = one_cycle_factor(total)
        assert all(0 < factor(step) <= 1 for step in range(total + 1))


def test_cosine_closed_form():
    factor = cosine_factor(100, final=0.05)
    assert factor(0) == pytest.approx(1.0)
    assert factor(50) == pytest.approx((1 + 0.05) / 2)
    assert factor(25) == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert factor(100) == factor(170) == pytest.approx(0.05)


def test_cosine_starts_after_the_warm_up():
    factor = with_warmup(cosine_factor(110, final=0.1, warmup_iters=10), 10)
    assert [factor(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert factor(60) == pytest.approx(0.55)


def test_warm_up_multiplies_a_drop():
    factor = with_warmup(step_factor(2, lr_drop=1), 4)
    assert [factor(s) for s in range(5)] == pytest.approx([0.25, 0.5, 0.075, 0.1, 0.01])
    assert with_warmup(factor, 0) is factor


def test_resumes_at_any_step():
    straight = rates(LambdaLR(sgd(0.1), cosine_factor(30, 0.1)), 30)
    second = LambdaLR(sgd(0.1), cosine_factor(30, 0.1))
    go_to_step(second, 13)
    assert second.last_epoch == 13 and rates(second, 17) == straight[13:]


def test_another_epoch_length_keeps_the_epoch():
    saved = {"position": 20, "steps_per_epoch": 10}
    assert [resumed_step(saved, steps) for steps in (5, 10, 20)] == [10, 20, 40]


def test_going_to_a_step_sets_every_groups_rate():
    schedule = LambdaLR(sgd(0.1, 0.01), step_factor(5, 2))
    go_to_step(schedule, 20)
    assert [g["lr"] for g in schedule.optimizer.param_groups] == pytest.approx([0.001, 0.0001])


def test_an_epoch_without_batches_is_an_error():
    toy_model = nn.Linear(2, 2)
    with pytest.raises(UserError, match="batch_size"):
        build_state(config(), toy_model, 0, torch.device("cpu"))
