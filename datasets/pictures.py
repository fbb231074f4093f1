"""Pictures from where they are; those that do not decode are named and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from util.errors import UserError
from util.logging import get_logger

T = TypeVar("T")

# So many damaged pictures in a row are no accident: the folder or the annotation file is the wrong one.
MAX_DAMAGED_IN_A_ROW = 20

# What Pillow raises on files that are truncated, garbage or absurdly large.
DECODING_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class PictureError(Exception):
    """One picture that is missing, does not decode or has another size than its annotations say."""


class PictureFolder:
    """Pictures as files below one folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def read(self, name: str, size: tuple[int, int] = (0, 0)) -> tv_tensors.Image:
        """The picture as (3, H, W) uint8 RGB.

        size: the (height, width) it must have; 0 where that is not known.
        Raises PictureError with the file's path.
        """
        path = self.root / name
        try:
            with Image.open(path) as file:
                pixels = np.array(file.convert("RGB"))
        except FileNotFoundError:
            raise PictureError(f"{path}: no such picture") from None
        except DECODING_ERRORS as error:
            raise PictureError(f"{path}: does not decode ({error})") from None
        if all(size) and pixels.shape[:2] != tuple(size):
            found, said = ("{1}x{0}".format(*s) for s in (pixels.shape, size))
            raise PictureError(f"{path}: is {found} pixels, its annotations say {said}")
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))


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
