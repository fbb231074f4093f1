"""Images that cannot be used: damaged or missing ones are named, counted, and limited."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch

from datasets.images.folders import Images
from datasets.images.preprocess import ImageError, MissingImageError
from util.errors import UserError
from util.logging import get_logger

T = TypeVar("T")

# More damaged images in a row than this: the folder or the annotation file must be the wrong one.
MAX_DAMAGED_IN_A_ROW = 20
# So many damaged images are no share, however small the data set is.
FEW_DAMAGED = 3
# What comes of them.
REPLACED, ALL_REPLACED = "another image is drawn in its place", "others are drawn in their place"
LEFT_OUT, ALL_LEFT_OUT = "the metrics leave it out", "the metrics leave them out"

# States of an image; 0: not met yet.
_WHOLE, _DAMAGED, _MISSING = 1, 2, 3


class DamagedImages:
    """Which images of a dataset are damaged or missing, shared by all worker processes of a loader.

    The states live in shared memory, so that the main process counts what its workers find.

    count:     images of the dataset.
    name:      of the dataset, for messages.
    max_share: of the images that may be damaged or missing (`max_damaged_share`).
    """

    def __init__(self, count: int, name: str = "", max_share: float = 1.0) -> None:
        self._states = torch.zeros(count, dtype=torch.uint8).share_memory_()
        self._name = name
        self._max_share = max_share

    def add(self, image: int, error: ImageError, consequence: str) -> None:
        """Marks an image as damaged or missing; the first time, the log names it and what comes of it.

        Raises UserError where there are too many.
        """
        if self._states[image] in (_DAMAGED, _MISSING):
            return
        state, word = (_MISSING, "missing") if isinstance(error, MissingImageError) else (_DAMAGED, "damaged")
        self._states[image] = state
        get_logger().warning("%s; %s (%d %s so far)", error, consequence, len(self._in(state)), word)
        states = self._states.numpy()
        seen = int(np.count_nonzero(states))
        if too_many_damaged(len(self), seen, len(states), self._max_share):
            raise UserError(
                f"{self._name}: {len(self)} of the {seen} images read so far are {self._words()}, "
                f"which is more than max_damaged_share={self._max_share:g} of them; the last: {error}"
            )

    def add_missing(self, names: Iterable[str], images: Images, consequence: str) -> None:
        """Marks and names the images that were looked for before the first step. names: of all images.

        Raises UserError where too many are missing.
        """
        gone = images.missing
        found = {i: name for i, name in enumerate(names) if name in gone} if gone else {}
        if not found:
            return
        self._states[torch.tensor(list(found))] = _MISSING
        count, missing, first = len(self._states), len(found), images.no_such(next(iter(found.values())))
        said = f"{self._name}: {missing} of {count} images are missing"
        if missing == count or too_many_damaged(missing, count, count, self._max_share):
            raise UserError(
                f"{said}, which is more than max_damaged_share={self._max_share:g}; first: {first}"
            )
        get_logger().warning("%s; %s; first: %s", said, consequence, first)

    def read(self, image: int) -> None:
        """Marks an image as one that can be used, unless it was damaged before."""
        if not self._states[image]:
            self._states[image] = _WHOLE

    def __len__(self) -> int:
        return len(self.damaged()) + len(self.missing())

    def damaged(self) -> list[int]:
        """The damaged ones, ascending."""
        return self._in(_DAMAGED)

    def missing(self) -> list[int]:
        """The missing ones, ascending."""
        return self._in(_MISSING)

    def _in(self, state: int) -> list[int]:
        return np.flatnonzero(self._states.numpy() == state).tolist()

    def _words(self) -> str:
        words = {"damaged": self.damaged(), "missing": self.missing()}
        return " or ".join(word for word, images in words.items() if images)


def too_many_damaged(damaged: int, seen: int, count: int, max_share: float) -> bool:
    """Whether more than `max_share` of a dataset's images are damaged, or surely will be.

    seen: of its `count` images so far, the `damaged` ones among them.
    A few bad images of a small dataset are never too many, unless max_share is 0.
    """
    if damaged > max_share * count and (damaged > FEW_DAMAGED or max_share == 0):
        return True
    # Three standard deviations above what a dataset at the limit would show by now.
    expected = max_share * seen
    return damaged >= 10 and damaged > expected + 3 * (expected * (1 - max_share)) ** 0.5


def first_readable(
    read: Callable[[int], T], image: int, count: int, rng: np.random.Generator, damaged: DamagedImages
) -> tuple[int, T]:
    """`(image, read(image))`, or the same for another image drawn by `rng` where that one is damaged.

    Raises UserError after MAX_DAMAGED_IN_A_ROW damaged images, or where too many are damaged.
    """
    for _ in range(MAX_DAMAGED_IN_A_ROW):
        try:
            found = read(image)
        except ImageError as error:
            damaged.add(image, error, REPLACED)
            last = error
            image = int(rng.integers(count))
        else:
            damaged.read(image)
            return image, found
    raise UserError(f"{MAX_DAMAGED_IN_A_ROW} images in a row cannot be used; the last: {last}")
