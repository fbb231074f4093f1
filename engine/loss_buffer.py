"""Losses between two log lines, kept on the device and read at once.

Reading a loss makes the CPU wait for the GPU, so nothing is read per step: the values of a window are
stacked, copied once, averaged over ranks, and checked for being finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from util import distributed
from util.errors import UserError, listed

# Losses that a message names.
_MOST_NAMED = 8


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
class BatchOrigin:
    """Where a batch comes from, and the state of the generators before it was computed.

    iteration: from 1.  image_level: of that stream.  files: of each image, with those of a mosaic.
    """

    iteration: int
    image_ids: tuple[int, ...] = ()
    files: tuple[tuple[str, ...], ...] = ()
    image_level: bool = False
    rng: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """`box-annotated images 7 a.jpg, 8 b.jpg`; a mosaic is `7 a.jpg + b.jpg + c.jpg + d.jpg`."""
        files = self.files or ((),) * len(self.image_ids)
        images = [
            " ".join([str(i), " + ".join(names)]).strip()
            for i, names in zip(self.image_ids, files, strict=True)
        ]
        return f"{'image-level' if self.image_level else 'box-annotated'} images {', '.join(images)}"


@dataclass(frozen=True)
class _Step:
    origin: BatchOrigin
    names: tuple[str, ...]
    values: Tensor


@dataclass(frozen=True)
class NonFinite:
    """The first batch with losses that were not finite: of which epoch, from 1, on which rank.

    losses: all of the batch, as numbers.
    """

    origin: BatchOrigin
    losses: Mapping[str, float]
    epoch: int = 0
    rank: int = 0

    @property
    def names(self) -> list[str]:
        """What was not finite."""
        return [name for name, value in self.losses.items() if not math.isfinite(value)]


class NonFiniteError(UserError):
    """A loss or a gradient was not finite; raised on every rank alike.  what: without advice."""

    def __init__(self, found: NonFinite, ranks: int) -> None:
        self.found = found
        place = f"epoch {found.epoch}, iteration {found.origin.iteration}"
        where = f" on rank {found.rank}" if ranks > 1 else ""
        names = listed(found.names, _MOST_NAMED)
        self.what = f"not finite in {place}{where}: {names} ({found.origin})"
        super().__init__(
            f"training stopped: {self.what}; look at those images, or lower lr, or set amp_dtype='bfloat16'"
        )


class LossBuffer:
    """Collects the losses of steps; `flush` returns their mean over steps and ranks and empties it.

    own: what this rank has read of the window so far.
    drops: steps with losses that are not finite do not count, and raise nothing.
    """

    def __init__(self, own: Averages | None = None) -> None:
        self.own = own or Averages()
        self.drops = False
        self._steps: list[_Step] = []
        self._failure: NonFinite | None = None

    def add(self, origin: BatchOrigin, losses: Mapping[str, Tensor]) -> None:
        """losses: detached scalars on one device."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self._steps.append(_Step(origin, tuple(losses), values))

    def settle(self, epoch: int) -> Averages:
        """Reads what was added and returns `own`; called on every rank at the same step.

        Each rank adds its own losses step after step, whenever they are read, so that a window which a
        checkpoint interrupts ends with the same sums. Raises NonFiniteError as `flush` does.
        """
        self._read()
        _raise_first(epoch, distributed.all_gather_object(self._failure))
        return self.own

    def flush(self, epoch: int) -> Averages:
        """Called on every rank at the same step.

        Raises NonFiniteError, the same on every rank, when a loss was not finite: it names the first
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
            found = NonFinite(step.origin, values)
            if self.drops and found.names:
                continue
            for name, value in values.items():
                self.own.add(name, value)
            if self._failure is None and found.names:
                self._failure = found


def _raise_first(epoch: int, failures: Sequence[NonFinite | None]) -> None:
    found = [replace(f, epoch=epoch, rank=rank) for rank, f in enumerate(failures) if f is not None]
    if found:
        # A rank's gradients reach all ranks in the same step: its loss says more than their gradient norm.
        first = min(found, key=lambda f: (f.origin.iteration, f.names == ["grad_norm"], f.rank))
        raise NonFiniteError(first, len(failures))
