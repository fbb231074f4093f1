"""Losses between two log lines, kept on the device and read at once.

Reading a loss makes the CPU wait for the GPU, so nothing is read per step: the values of a window are
stacked, copied once, averaged over ranks, and checked for being finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

    def merge(self, other: Averages) -> None:
        for name, value in other.sums.items():
            self.add(name, value, other.counts[name])

    def means(self) -> dict[str, float]:
        return {name: value / self.counts[name] for name, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """Plain data. `Averages(**state)` is the way back."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}


@dataclass(frozen=True)
class _Step:
    iteration: int
    image_ids: tuple[int, ...]
    names: tuple[str, ...]
    values: Tensor


@dataclass(frozen=True)
class _Failure:
    """The first step of a rank with losses that were not finite."""

    iteration: int
    image_ids: tuple[int, ...]
    names: tuple[str, ...]


class LossBuffer:
    """Collects the losses of steps; `flush` returns their mean over steps and ranks and empties it.

    own: what this rank has read of the window so far.
    """

    def __init__(self, own: Averages | None = None) -> None:
        self.own = own or Averages()
        self._steps: list[_Step] = []
        self._failure: _Failure | None = None

    def add(self, iteration: int, image_ids: Sequence[int], losses: Mapping[str, Tensor]) -> None:
        """losses: detached scalars on one device."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self._steps.append(_Step(iteration, tuple(image_ids), tuple(losses), values))

    def settle(self, epoch: int) -> Averages:
        """Reads what was added and returns `own`; called on every rank at the same step.

        Each rank adds its own losses step after step, whenever they are read, so that a window which a
        checkpoint interrupts ends with the same sums. Raises UserError as `flush` does.
        """
        self._read()
        _raise_first(epoch, distributed.all_gather_object(self._failure))
        return self.own

    def flush(self, epoch: int) -> Averages:
        """Called on every rank at the same step.

        Raises UserError, the same on every rank, when a loss was not finite: it names the first
        iteration, that rank's images and the losses.
        """
        self._read()
        own, self.own = self.own, Averages()
        gathered = distributed.all_gather_object((own, self._failure))
        _raise_first(epoch, [failure for _, failure in gathered])
        merged = Averages()
        for part, _ in gathered:
            merged.merge(part)
        return merged

    def _read(self) -> None:
        """Moves the steps' values, in one copy, to `own`."""
        steps, self._steps = self._steps, []
        numbers = torch.cat([s.values for s in steps]).tolist() if steps else []
        position = 0
        for step in steps:
            values = dict(zip(step.names, numbers[position : position + len(step.names)], strict=True))
            position += len(step.names)
            for name, value in values.items():
                self.own.add(name, value)
            bad = tuple(name for name, value in values.items() if not math.isfinite(value))
            if bad and self._failure is None:
                self._failure = _Failure(step.iteration, step.image_ids, bad)


def _raise_first(epoch: int, failures: Sequence[_Failure | None]) -> None:
    found = [(rank, failure) for rank, failure in enumerate(failures) if failure is not None]
    if not found:
        return
    # A rank's gradients reach all ranks in the same step: its loss says more than their gradient norm.
    rank, first = min(found, key=lambda f: (f[1].iteration, f[1].names == ("grad_norm",), f[0]))
    where = f" on rank {rank}" if len(failures) > 1 else ""
    names = ", ".join(first.names[:8])
    names += f" and {len(first.names) - 8} more" if len(first.names) > 8 else ""
    images = ", ".join(str(i) for i in first.image_ids)
    raise UserError(
        f"training stopped: not finite in epoch {epoch}, iteration {first.iteration}{where}: {names} "
        f"(images {images}); look at those images, or lower lr, or set amp_dtype='bfloat16'"
    )
