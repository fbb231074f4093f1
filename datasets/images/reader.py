"""Images from files, tars and zips; those that do not decode are named and counted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from datasets.images.class_sources import IMAGE_SUFFIXES
from datasets.images.limits import leaves_folder, read_file
from datasets.images.preprocess import EncodedImage, ImageError
from datasets.images.tar_index import TarIndex, open_tar
from datasets.images.zip_index import ZipIndex, open_zip
from util.errors import UserError
from util.logging import get_logger

T = TypeVar("T")

# More damaged images in a row than this: the folder or the annotation file must be the wrong one.
MAX_DAMAGED_IN_A_ROW = 20
# So many damaged images are no share, however small the data set is.
FEW_DAMAGED = 3

# States of an image; 0: not met yet.
_WHOLE, _DAMAGED = 1, 2

# The process has too many files open: no fault of the image.
_NOT_THE_FILE = {errno.EMFILE, errno.ENFILE}
_OPEN_FILES = "raise the limit of open files, ulimit -n"

# In the order in which they are tried.
_OPENERS = {".tar": open_tar, ".zip": open_zip}


class Found(NamedTuple):
    """label: its path, for messages.  read: returns its bytes; raises OSError."""

    label: str
    read: Callable[[], bytes]


class ImageFolder:
    """Images below one folder, as files or in archives, which may be mixed; a file wins.

    The image `a/b.jpg` below `root` is looked for as `root/a/b.jpg`; then in `root/a.tar` or `root/a.zip`,
    and in `root.tar` or `root.zip`, as `a/b.jpg`, `b.jpg` or with the archive's own name in front.
    An unreadable archive brings a warning, and its images are missing.

    inside: names with `..` or a leading `/`, and links that lead neither here, nor into `root`, nor into the
        folder that the first part of a name stands for (a split or class that was put on another disk), are
        refused. None: everything is read.
    upright: the rule of the annotations' format: whether an EXIF orientation is applied where the stated size
        does not tell.
    """

    def __init__(self, root: str | Path, inside: str | Path | None = None, *, upright: bool = False) -> None:
        self.root = Path(root)
        self.inside = inside
        self.upright = upright
        self._real: dict[str | Path, str] = {}
        self._opened: dict[Path, list[TarIndex | ZipIndex]] = {}

    def find(self, name: str) -> Found | None:
        """The image of this name relative to the folder, or None: it is missing or refused."""
        return None if self.refusal(name) else self._find(name)

    def refusal(self, name: str) -> str:
        """Why a name is not read although there may be such a file; "" where it is."""
        if self.inside is None:
            return ""
        if leaves_folder(name):
            return "its name leads out of the image folder"
        try:
            real = os.path.realpath(self.root / name)
        except (OSError, ValueError):  # no name that a file can have
            return ""
        first = name.partition("/")[0] if "/" in name else "."
        homes = (self._realpath(home) for home in (self.root, self.root / first, self.inside))
        if any(real.startswith(f"{home}{os.sep}") for home in homes):
            return ""
        return f"is a link to {real}, which is outside of {self.inside}"

    def _realpath(self, path: str | Path) -> str:
        if path not in self._real:
            self._real[path] = os.path.realpath(path).rstrip(os.sep)
        return self._real[path]

    def _find(self, name: str) -> Found | None:
        path = self.root / name
        if os.path.isfile(path):
            return Found(str(path), partial(read_file, path))
        for archive, member in self._places(name):
            row = archive.find(member)
            if row is not None:
                return Found(f"{archive.path}: {member}", partial(archive.read, row))
        return None

    def open(self, name: str, size: tuple[int, int] = (0, 0)) -> EncodedImage:
        """The image, of which only the header is read.

        size: the (height, width) it must have; 0 if unknown.
        Raises ImageError with the file's path if it is missing, refused, not an image, or of another size.
        """
        if refusal := self.refusal(name):
            raise ImageError(f"{self.root / name}: {refusal}")
        found = self._find(name)
        if found is None:
            raise ImageError(f"{self.root / name}: no such image{self.nearest(name)}")
        try:
            data = found.read()
        except OSError as error:
            if error.errno in _NOT_THE_FILE:
                raise UserError(f"{found.label}: cannot be read ({error.strerror}); {_OPEN_FILES}") from None
            raise ImageError(f"{found.label}: cannot be read ({error})") from None
        except MemoryError:
            raise ImageError(f"{found.label}: cannot be read (out of memory)") from None
        image = EncodedImage(data, found.label, upright=self.upright, stated=size)
        if all(size) and image.size != tuple(size):
            found_size, said = ("{1}x{0}".format(*s) for s in (image.size, size))
            raise ImageError(f"{found.label}: is {found_size} pixels, its annotations say {said}")
        return image

    def read(self, name: str, size: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The image as (H, W, 3) uint8 RGB. Raises ImageError as `open` does, or if it is damaged."""
        return self.open(name, size).decode()

    def nearest(self, name: str) -> str:
        """A hint if only the suffix of the name is wrong, '' otherwise."""
        stem, suffix = os.path.splitext(name)
        suffixes = (s for lower in IMAGE_SUFFIXES for s in (lower, lower.upper()))
        other = next((stem + s for s in suffixes if s != suffix and self.find(stem + s)), None)
        return f"; there is {other}" if other else ""

    def open_archives(self, images: Iterable[str] | None = None) -> None:
        """Opens the archives in the folder, so that forked processes share their indices.

        images: names that will be read; archives without any of them stay closed. None opens all.
        """
        found, folders = list(self._archives(self.root)), set()
        if self.root.is_dir():
            with os.scandir(self.root) as entries:
                folders = {Path(e.name).stem for e in entries if Path(e.name).suffix in _OPENERS}
        if folders and images is not None:
            folders &= {name.partition("/")[0] for name in images}
        found += [a for folder in sorted(folders) for a in self._archives(self.root / folder)]
        if found:
            members = sum(len(archive) for archive in found)
            get_logger().info("%s: %d archives of %d files", self.root, len(found), members)

    def _places(self, name: str) -> Iterator[tuple[TarIndex | ZipIndex, str]]:
        """Archives that may contain the image, and its possible names there."""
        parts = name.split("/")
        for depth in range(len(parts) - 1, -1, -1):
            folder = self.root.joinpath(*parts[:depth])
            inside = "/".join(parts[depth:])
            for archive in self._archives(folder):
                for member in dict.fromkeys((inside, f"{folder.name}/{inside}", name)):
                    yield archive, member

    def _archives(self, folder: Path) -> list[TarIndex | ZipIndex]:
        """The archives that stand in for a folder."""
        if folder not in self._opened:
            self._opened[folder] = found = []
            for suffix in _OPENERS if folder.name else ():
                path = folder.with_name(folder.name + suffix)
                if os.path.isfile(path):
                    try:
                        found.append(_OPENERS[suffix](path))
                    except UserError as error:
                        get_logger().warning("%s; its images are missing", error)
        return self._opened[folder]


class DamagedImages:
    """Which images of a dataset could not be used, shared by all worker processes of a loader.

    The states live in shared memory, so that the main process counts what its workers find.

    count:     images of the dataset.
    name:      of the dataset, for messages.
    max_share: of the images that may be damaged (`max_damaged_share`).
    """

    def __init__(self, count: int, name: str = "", max_share: float = 1.0) -> None:
        self._states = torch.zeros(count, dtype=torch.uint8).share_memory_()
        self._name = name
        self._max_share = max_share

    def add(self, image: int, error: ImageError, consequence: str) -> None:
        """Marks an image as damaged, and names it in the log the first time, with what comes of it.

        Raises UserError where too many are damaged.
        """
        if self._states[image] == _DAMAGED:
            return
        self._states[image] = _DAMAGED
        get_logger().warning("%s; %s (%d so far)", error, consequence, len(self))
        states = self._states.numpy()
        seen = int(np.count_nonzero(states))
        if too_many_damaged(len(self), seen, len(states), self._max_share):
            raise UserError(
                f"{self._name}: {len(self)} of the {seen} images read so far are damaged, which is more than "
                f"max_damaged_share={self._max_share:g} of them; the last: {error}"
            )

    def read(self, image: int) -> None:
        """Marks an image as one that can be used, unless it was damaged before."""
        if not self._states[image]:
            self._states[image] = _WHOLE

    def __len__(self) -> int:
        return int(np.count_nonzero(self._states.numpy() == _DAMAGED))

    def images(self) -> list[int]:
        """The damaged ones, ascending."""
        return np.flatnonzero(self._states.numpy() == _DAMAGED).tolist()


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
            damaged.add(image, error, "another image is drawn in its place")
            last = error
            image = int(rng.integers(count))
        else:
            damaged.read(image)
            return image, found
    raise UserError(f"{MAX_DAMAGED_IN_A_ROW} images in a row cannot be used; the last: {last}")
