"""Losses between two log lines, kept on the device and read at once.

Reading a loss makes the CPU wait for the GPU, so nothing is read per step: the values of a window are
stacked, copied once, averaged over ranks, and checked for being finite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from util import distributed
from util.errors import UserError


@dataclass
class Averages:
    """Sums and counts by name; a name counts only the steps that had it."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float, count: int = 1) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + count

    def merge(self, other: "Averages") -> None:
        for name, value in other.sums.items():
            self.add(name, value, other.counts[name])

    def means(self) -> dict[str, float]:
        return {name: value / self.counts[name] for name, value in self.sums.items()}


@dataclass(frozen=True)
class _Step:
    iteration: int
    image_ids: tuple[int, ...]
    names: tuple[str, ...]
    values: Tensor


class LossBuffer:
    """Collects the losses of steps; `flush` returns their mean over steps and ranks and empties it."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, iteration: int, image_ids: Sequence[int], losses: Mapping[str, Tensor]) -> None:
        """losses: detached scalars on one device."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self._steps.append(_Step(iteration, tuple(image_ids), tuple(losses), values))

    def flush(self, epoch: int) -> Averages:
        """Called on every rank at the same step.

        Raises UserError, the same on every rank, when a loss was not finite: it names the first
        iteration, that rank's images and the losses.
        """
        steps, self._steps = self._steps, []
        numbers = torch.cat([s.values for s in steps]).tolist() if steps else []
        averages, failure, position = Averages(), None, 0
        for step in steps:
            values = dict(zip(step.names, numbers[position : position + len(step.names)], strict=True))
            position += len(step.names)
            for name, value in values.items():
                averages.add(name, value)
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad and failure is None:
                failure = (step.iteration, step.image_ids, bad)
        gathered = distributed.all_gather_object((averages, failure))
        _raise_first(epoch, [failure for _, failure in gathered])
        merged = Averages()
        for part, _ in gathered:
            merged.merge(part)
        return merged


def _raise_first(epoch: int, failures: list) -> None:
    found = [(rank, failure) for rank, failure in enumerate(failures) if failure is not None]
    if not found:
        return
    # A rank's gradients reach all ranks in the same step: its loss says more than their gradient norm.
    rank, (iteration, image_ids, bad) = min(found, key=lambda f: (f[1][0], f[1][2] == ["grad_norm"], f[0]))
    where = f" on rank {rank}" if len(failures) > 1 else ""
    names = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
    images = ", ".join(str(i) for i in image_ids)
    raise UserError(
        f"training stopped: not finite in epoch {epoch}, iteration {iteration}{where}: {names} "
        f"(images {images}); look at those images, or lower lr, or set amp_dtype='bfloat16'"
    )
