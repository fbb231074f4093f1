"""Learning-rate schedules, each a closed form of the optimizer step.

The factor multiplies every group's own learning rate, so groups keep their ratios. Only the position is
state: on resume the numbers come from the config, and with another number of steps per epoch the position
is carried over by epoch.
"""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer

from util.errors import UserError

Factor = Callable[[int], float]


def step_factor(steps_per_epoch: int, lr_drop: int) -> Factor:
    """x 0.1 every `lr_drop` epochs (official `lr_drop`)."""
    return lambda step: 0.1 ** (step // steps_per_epoch // lr_drop)


def multi_step_factor(steps_per_epoch: int, epochs: Sequence[int]) -> Factor:
    """x 0.1 at each of the given epochs (official `multi_step_lr`, `lr_drop_list`)."""
    return lambda step: 0.1 ** sum(step // steps_per_epoch >= epoch for epoch in epochs)


def one_cycle_factor(
    total_steps: int, rise: float = 0.2, start: float = 1 / 25, end: float = 1 / 25e4
) -> Factor:
    """Up from `start` to 1 over the share `rise` of all steps, down to `end`, both along a cosine.

    The learning rates of torch's OneCycleLR with its default divisors (official `onecyclelr`,
    `pct_start` 0.2); momentum stays as it is.
    """
    top = max(rise * total_steps - 1, 1e-9)
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


class Schedule:
    """Sets the learning rates of an optimizer for the step that comes next.

    Call `step()` once after each optimizer step.
    """

    def __init__(self, optimizer: Optimizer, factor: Factor, steps_per_epoch: int) -> None:
        if steps_per_epoch < 1:
            raise UserError("the training set gives not one batch: fewer images than batch_size x ranks")
        self.optimizer = optimizer
        self.factor = factor
        self.steps_per_epoch = steps_per_epoch
        self.position = 0
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._apply()

    def step(self) -> None:
        """Moves on by one optimizer step."""
        self.position += 1
        self._apply()

    def go_to_epoch(self, epoch: int) -> None:
        """Moves to the first step of `epoch` (0 is the first)."""
        self.position = epoch * self.steps_per_epoch
        self._apply()

    def state_dict(self) -> dict:
        return {"position": self.position, "steps_per_epoch": self.steps_per_epoch}

    def load_state_dict(self, state: dict) -> None:
        """Takes the saved position; rescaled when an epoch had another number of steps."""
        position, steps = int(state["position"]), int(state["steps_per_epoch"])
        self.position = (position * self.steps_per_epoch + steps // 2) // steps
        self._apply()

    def _apply(self) -> None:
        factor = self.factor(self.position)
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * factor
