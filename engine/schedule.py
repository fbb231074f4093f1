"""Learning-rate factors, each a closed form of the optimizer step, for torch's LambdaLR.

A factor multiplies the learning rate of every group, so groups keep their ratios. Only the step is state:
on resume the numbers come from the config, and a step of epochs of another length is carried over by epoch.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from torch.optim.lr_scheduler import LambdaLR

Factor = Callable[[int], float]


def step_factor(steps_per_epoch: int, lr_drop: int) -> Factor:
    """x 0.1 every `lr_drop` epochs (official `lr_drop`)."""
    return lambda step: 0.1 ** (step // steps_per_epoch // lr_drop)


def multi_step_factor(steps_per_epoch: int, epochs: Sequence[int]) -> Factor:
    """x 0.1 at each of the given epochs (official `multi_step_lr`, `lr_drop_list`)."""
    return lambda step: 0.1 ** sum(step // steps_per_epoch >= epoch for epoch in epochs)


def one_cycle_factor(
    total_steps: int, pct_start: float = 0.2, start: float = 1 / 25, end: float = 1 / 25e4
) -> Factor:
    """Up from `start` to 1 over the fraction `pct_start` of all steps, down to `end`, both along a cosine.

    The learning rates of torch's OneCycleLR with its default divisors (official `onecyclelr`,
    `pct_start` 0.2); momentum stays as it is.
    """
    top = max(pct_start * total_steps - 1, 1e-9)
    last = max(total_steps - 1, top + 1e-9)

    def factor(step: int) -> float:
        if step <= top:
            return _cosine(start, 1.0, step / top)
        return _cosine(1.0, end, min(1.0, (step - top) / (last - top)))

    return factor


def cosine_factor(total_steps: int, final: float, warmup_iters: int = 0) -> Factor:
    """From 1 at the end of the warm-up to `final` after the last step."""
    span = max(1, total_steps - warmup_iters)
    return lambda step: _cosine(1.0, final, min(1.0, max(0, step - warmup_iters) / span))


def with_warmup(factor: Factor, warmup_iters: int) -> Factor:
    """Times a straight line that reaches 1 at step `warmup_iters - 1`."""
    if warmup_iters <= 0:
        return factor
    return lambda step: min(1.0, (step + 1) / warmup_iters) * factor(step)


def _cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * progress))


def go_to_step(schedule: LambdaLR, step: int) -> None:
    """Sets the learning rates of optimizer step `step`, from 0."""
    schedule.last_epoch = step
    groups = schedule.optimizer.param_groups
    for group, base, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(step)


def resumed_step(saved: Mapping[str, int], steps_per_epoch: int) -> int:
    """The step at which a run with `steps_per_epoch` continues: the saved one, carried over by epoch.

    saved: `position`, the saved step, and `steps_per_epoch` of the run that saved it.
    """
    position, steps = int(saved["position"]), int(saved["steps_per_epoch"])
    return (position * steps_per_epoch + steps // 2) // steps
