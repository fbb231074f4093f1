"""`batch_size='auto'`: the largest batch whose forecast memory fits the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.device import memory_at_hand, peak_memory, reset_peak_memory
from engine.settings import TrainSettings
from engine.state import TrainingState
from engine.train_epoch import Task, TrainStep
from util import distributed
from util.errors import UserError
from util.structures import Batch

# Of the memory at hand: the rest is for fragments on a GPU, and on a CPU for loader processes and others.
USABLE = {"cuda": 0.9, "cpu": 0.75}
# Images per process: more of them make steps rare, not faster.
MOST = 64
# The release's total batch and its learning rate.
OFFICIAL_IMAGES, OFFICIAL_LR = 16, 1e-4


@dataclass(frozen=True)
class Growth:
    """Peak memory of a training step, in bytes, as a straight line over the pixels of its batch.

    one, two: (pixels, bytes) of the worst batches of one and of two images. two is None where it did not fit.
    """

    one: tuple[int, int]
    two: tuple[int, int] | None

    def forecast(self, images: int) -> float:
        """Bytes of the worst batch of so many images. All but a single one share the padding of two."""
        (pixels, taken), two = self.one, self.two
        if images == 1:
            return taken
        if two is None:
            return math.inf
        return taken + max(0, two[1] - taken) / (two[0] - pixels) * (images * two[0] / 2 - pixels)

    def largest(self, most: int, limit: float) -> int:
        """The largest batch of at most `most` images within `limit` bytes; 0 where not even one fits."""
        return next((n for n in range(most, 0, -1) if self.forecast(n) <= limit), 0)


def choose_batch_size(
    task: Task,
    state: TrainingState,
    worst_batch: Callable[[int], Batch],
    settings: TrainSettings,
    most: int,
    ranks_here: int = 1,
) -> tuple[int, str]:
    """Images per process, the same on all ranks, and a line for people. Trains, so the weights change.

    worst_batch: of so many images, what needs most memory. most: that there are for a process.
    ranks_here: processes that share this machine's memory, on a CPU.
    Raises UserError where not even one image fits.
    """
    device = settings.device
    limit = USABLE[device.type] * memory_at_hand(device, ranks_here)
    growth = _measure(task, state, worst_batch, settings, limit)
    found = growth.largest(min(most, MOST), limit) if growth else 0
    least = min(distributed.all_gather_object(found))
    if least == 0:
        raise UserError(
            f"batch_size='auto': training on one image does not fit the {limit / 2**30:.1f} GiB that may be "
            "used: set use_checkpoint=True or amp=True, or lower data_aug_scales"
        )
    assert growth is not None
    needed = max(distributed.all_gather_object(growth.forecast(least)))
    return least, (
        f"batch_size='auto' takes {least}: forecast {needed / 2**30:.2f} of {limit / 2**30:.2f} GiB that may "
        f"be used ({USABLE[device.type]:.0%} of what is free)"
    )


def _measure(
    task: Task,
    state: TrainingState,
    worst_batch: Callable[[int], Batch],
    settings: TrainSettings,
    limit: float,
) -> Growth | None:
    """None where one image does not fit."""
    last = settings.accumulate_steps - 1
    step = TrainStep(task, state, settings, last + 1)
    task.model.train()
    before = peak_memory(settings.device)

    def peak(batch: Batch) -> tuple[int, int] | None:
        reset_peak_memory(settings.device)
        try:
            step(last, batch)
        except torch.OutOfMemoryError:
            return None
        return batch[0].tensor.numel(), peak_memory(settings.device)

    single, double = worst_batch(1), worst_batch(2)
    # Twice: the first step makes the optimizer's state.
    one = peak(single) and peak(single)
    if one is None:
        return None
    # A CPU has no error for too little memory: two images are not tried where they would hardly fit.
    guess = one[1] + max(0, one[1] - before) * (double[0].tensor.numel() / one[0] - 1)
    hardly = settings.device.type == "cpu" and guess > limit
    if any(distributed.all_gather_object(hardly)):
        return Growth(one, None)
    return Growth(one, peak(double))


def learning_rate_rule(images: int, lr: float) -> str:
    """What the two usual rules say of the learning rate for so many images a step."""
    share = images / OFFICIAL_IMAGES
    linear, root = OFFICIAL_LR * share, OFFICIAL_LR * math.sqrt(share)
    return (
        f"{images} images a step: the release has lr={OFFICIAL_LR:g} for {OFFICIAL_IMAGES}, which the linear "
        f"rule makes {linear:.3g} and the square-root rule {root:.3g}; lr stays {lr:g}, as the config has it"
    )
