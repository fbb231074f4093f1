"""Two parts with the same share of every class: iterative stratification.

Sechidis, Tsoumakas and Vlahavas, *On the Stratification of Multi-Label Data* (2011): the rarest class first,
its images to the part that still wants most of that class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from datasets.columns import Ragged

TRAIN, VAL = 0, 1
UNDECIDED = -1
# A class that is so near to its share leaves the choice to the next one. Sums of shares are not exact.
_AT_HAND = 0.5 - 1e-6


def stratify(
    classes: Ragged, num_classes: int, sizes: np.ndarray, share: float, known: np.ndarray
) -> np.ndarray:
    """(U,) bool: which units are for validation. A unit is what must stay together, most often one image.

    classes: U lists of distinct classes 0..num_classes-1.  sizes: (U,) images of each unit.
    share: of the images that validation gets, to the image; to within a unit where units have several.
    known: (U,) TRAIN, VAL or UNDECIDED; what is decided stays.
    A class in one unit is for training. One in several is in both parts, unless the share is too small for
    that. Rows are taken in their order, and classes that are equally rare in theirs.
    """
    state = _Assignment(classes, num_classes, sizes.tolist(), share, known.tolist())
    state.assign_rarest_first()
    state.cover()
    return np.array(state.part) == VAL


@dataclass
class _Assignment:
    """part: (U,) of each unit.  room: by part, the images that it can still take.
    count: by part and class, the units that are there.
    By class: total, its units; left, those without a part; share_of, what validation gets of it, and wanted,
    the units that validation still lacks."""

    classes: Ragged
    num_classes: int
    sizes: list[int]
    share: float
    known: list[int]
    part: list[int] = field(init=False)
    count: list[list[int]] = field(init=False)
    room: list[int] = field(init=False)

    def __post_init__(self) -> None:
        total = np.bincount(self.classes.values, minlength=self.num_classes)
        # The rarest first, also within a unit: it decides.
        order = np.lexsort((self.classes.values, total[self.classes.values], self.classes.row_of_value))
        values, offsets = self.classes.values[order].tolist(), self.classes.offsets.tolist()
        self.rows = [values[start:end] for start, end in pairwise(offsets)]
        members = Ragged.from_rows(self.classes.values, self.classes.row_of_value, self.num_classes)
        self.members = [members[c].tolist() for c in range(self.num_classes)]
        self.total, self.left = total.tolist(), total.tolist()
        wanted = np.clip(self.share * total, 1, np.maximum(total - 1, 1))
        self.wanted, self.share_of = wanted.tolist(), (wanted / np.maximum(total, 1)).tolist()
        self.count = [[0] * self.num_classes for _ in (TRAIN, VAL)]
        images = sum(self.sizes)
        for_val = round(self.share * images)
        self.room = [images - for_val, for_val]
        self.part = [UNDECIDED] * len(self.rows)
        for unit, part in enumerate(self.known):
            if part != UNDECIDED:
                self._put(unit, part)

    def _put(self, unit: int, part: int) -> None:
        self.part[unit] = part
        self.room[part] -= self.sizes[unit]
        for c in self.rows[unit]:
            self.wanted[c] -= part == VAL
            self.left[c] -= 1
            self.count[part][c] += 1

    def assign_rarest_first(self) -> None:
        """Decides about every unit."""
        while open_classes := [c for c in range(self.num_classes) if self.left[c]]:
            for unit in self.members[min(open_classes, key=self.left.__getitem__)]:
                if self.part[unit] == UNDECIDED:
                    self._put(unit, self._choose(unit))

    def _choose(self, unit: int) -> int:
        size = self.sizes[unit]
        fits = [self.room[part] >= size for part in (TRAIN, VAL)]
        if fits[TRAIN] != fits[VAL]:
            return VAL if fits[VAL] else TRAIN
        for c in self.rows[unit]:
            if self.total[c] == 1:
                return TRAIN
            missing = self.wanted[c] - self.share_of[c] * self.left[c]
            if abs(missing) >= _AT_HAND:
                return VAL if missing > 0 else TRAIN
        return VAL if self.room[VAL] > self.share * sum(self.room) else TRAIN

    def cover(self) -> None:
        """Swaps units so that classes in several are in both parts, where swaps of two can do that."""
        for c in sorted(range(self.num_classes), key=lambda c: (self.total[c], c)):
            if self.total[c] > 1:
                for part in (TRAIN, VAL):
                    if not self.count[part][c] and (swap := self._find_swap(c, part)):
                        for unit, new in zip(swap, (part, 1 - part), strict=True):
                            self._move(unit, new)

    def _move(self, unit: int, part: int) -> None:
        self.part[unit] = part
        for c in self.rows[unit]:
            self.count[part][c] += 1
            self.count[1 - part][c] -= 1

    def _find_swap(self, c: int, part: int) -> tuple[int, int] | None:
        """A unit of class c in the other part, and one of `part` that may go there for it."""
        for unit in self._free(self.members[c], 1 - part):
            if self._leaves(unit, 1 - part, ()):
                for other in self._free(range(len(self.rows)), part):
                    if self.sizes[other] == self.sizes[unit] and self._leaves(other, part, self.rows[unit]):
                        return unit, other
        return None

    def _free(self, units: Sequence[int], part: int) -> Iterator[int]:
        return (u for u in units if self.part[u] == part and self.known[u] == UNDECIDED)

    def _leaves(self, unit: int, part: int, arriving: Sequence[int]) -> bool:
        """Whether every class of the unit stays in `part` without it, given the classes that come instead."""
        return all(
            self.count[part][c] > 1 or c in arriving or (part == VAL and self.total[c] == 1)
            for c in self.rows[unit]
        )
