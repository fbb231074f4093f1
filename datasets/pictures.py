"""Pictures from where they are; those that do not decode are named and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torchvision import tv_tensors

from datasets.decode import EncodedPicture, PictureError
from datasets.picture_files import PictureFiles
from util.errors import UserError
from util.logging import get_logger

T = TypeVar("T")

# So many damaged pictures in a row are no accident: the folder or the annotation file is the wrong one.
MAX_DAMAGED_IN_A_ROW = 20


class PictureFolder(PictureFiles):
    """Pictures below one folder, as files or in archives (see PictureFiles)."""

    def open(self, name: str, size: tuple[int, int] = (0, 0)) -> EncodedPicture:
        """The picture, its header read.

        size: the (height, width) it must have; 0 where that is not known.
        Raises PictureError with the file's path where it is missing, no picture, or of another size.
        """
        found = self.find(name)
        if found is None:
            raise PictureError(f"{self.root / name}: no such picture{self.nearest(name)}")
        try:
            data = found.read()
        except OSError as error:
            raise PictureError(f"{found.label}: cannot be read ({error})") from None
        picture = EncodedPicture(data, found.label)
        if all(size) and picture.size != tuple(size):
            found_size, said = ("{1}x{0}".format(*s) for s in (picture.size, size))
            raise PictureError(f"{found.label}: is {found_size} pixels, its annotations say {said}")
        return picture

    def read(self, name: str, size: tuple[int, int] = (0, 0)) -> tv_tensors.Image:
        """The picture as (3, H, W) uint8 RGB. Raises PictureError as `open`, or where it is damaged."""
        return self.open(name, size).decode()


class DamagedPictures:
    """Which pictures of a dataset could not be used, known to all worker processes of a loader.

    The flags live in shared memory, so that the main process can count what its workers met.
    """

    def __init__(self, count: int) -> None:
        self._flags = torch.zeros(count, dtype=torch.uint8).share_memory_()

    def add(self, picture: int, error: PictureError) -> None:
        """Marks a picture, and names it in the log the first time."""
        if not self._flags[picture]:
            self._flags[picture] = 1
            get_logger().warning("%s; another picture is drawn in its place (%d so far)", error, len(self))

    def __len__(self) -> int:
        return int(self._flags.sum())

    def pictures(self) -> list[int]:
        """The damaged ones, ascending."""
        return torch.nonzero(self._flags).flatten().tolist()


def first_readable(
    read: Callable[[int], T], picture: int, count: int, rng: np.random.Generator, damaged: DamagedPictures
) -> tuple[int, T]:
    """`(picture, read(picture))`, or the same for another picture drawn by `rng` where that one is damaged.

    Raises UserError when one after the other is damaged.
    """
    for _ in range(MAX_DAMAGED_IN_A_ROW):
        try:
            return picture, read(picture)
        except PictureError as error:
            damaged.add(picture, error)
            last = error
            picture = int(rng.integers(count))
    raise UserError(f"{MAX_DAMAGED_IN_A_ROW} pictures in a row cannot be used; the last: {last}")
