"""Images from files, tars and zips."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.images.class_sources import IMAGE_SUFFIXES
from datasets.images.limits import leaves_folder, read_file
from datasets.images.names import Located, locate
from datasets.images.preprocess import EncodedImage, ImageError, MissingImageError
from datasets.images.tar_index import TarIndex, open_tar
from datasets.images.zip_index import ZipIndex, open_zip
from util.errors import UserError, first_line
from util.logging import get_logger

# More images of a data set than this are not all looked for before the first step.
MOST_LOOKED_UP = 300_000
_PROBES = 64
# So many damaged images are no share, however small the data set is.
FEW_DAMAGED = 3

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
    missing: the names that `resolve` did not find -> what is there instead.
    upright: the rule of the annotations' format: whether an EXIF orientation is applied where the stated size
        does not tell.
    """

    def __init__(self, root: str | Path, inside: str | Path | None = None, *, upright: bool = False) -> None:
        self.root = Path(root)
        self.inside = inside
        self.upright = upright
        self.missing: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._real: dict[str | Path, str] = {}
        self._opened: dict[Path, list[TarIndex | ZipIndex]] = {}

    def resolve(self, names: Sequence[str]) -> Located:
        """Looks for the images of a data set under all forms of their names; later calls know the result.

        Costs a listing of their folders. Of more than MOST_LOOKED_UP, or in archives, a sample is looked for:
        where all of it is there, the others are taken to be.
        """
        absent = self._absent(names)
        taken = set(names) if absent else ()
        located = locate(absent, self.root, self._has, taken)
        self._files = {name: file for name, (_, file) in located.found.items()}
        self.missing = located.missing
        return located

    def _has(self, name: str) -> bool:
        # In this order: most names that are tried are nowhere.
        return self._find(name) is not None and not self.refusal(name)

    def _absent(self, names: Sequence[str]) -> list[str]:
        """The names that are no files, nor members of archives."""
        if len(names) > MOST_LOOKED_UP and not self._absent(names[:: len(names) // _PROBES]):
            return []
        folders: dict[str, list[str]] = defaultdict(list)
        for name in names:
            folders[name.rpartition("/")[0]].append(name)
        absent = []
        for folder, inside in folders.items():
            there = _files_in(self.root / folder) if len(inside) > _PROBES else set()
            others = [name for name in inside if name.rpartition("/")[2] not in there]
            if not there and len(others) > _PROBES:  # an archive, most likely
                step = len(others) // _PROBES
                others = others if any(self._find(name) is None for name in others[::step]) else []
            absent += [name for name in others if self._find(name) is None]
        return absent

    def find(self, name: str) -> Found | None:
        """The image of this name relative to the folder, or None: it is missing or refused."""
        return None if self.refusal(name) else self._find(self._files.get(name, name))

    def refusal(self, name: str) -> str:
        """Why a name is not read although there may be such a file; "" where it is."""
        name = self._files.get(name, name)
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

    def file_of(self, name: str) -> Path | None:
        """The file of an image that lies in none of the archives."""
        path = self.root / self._files.get(name, name)
        return path if os.path.isfile(path) else None

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
        found = self._find(self._files.get(name, name))
        if found is None:
            raise MissingImageError(self.no_such(name))
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

    def no_such(self, name: str) -> str:
        """The message for an image that is missing."""
        return f"{self.root / name}: no such image{self.nearest(name)}"

    def nearest(self, name: str) -> str:
        """Why a file of this name cannot be read, or what is there instead; "" where nothing is known."""
        if reason := _why_no_file(self.root / name):
            return f" ({reason})"
        if instead := self.missing.get(name):
            return f"; there is {instead}"
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


def _files_in(folder: Path) -> set[str]:
    """Names of the files in a folder; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def _why_no_file(path: Path) -> str:
    """What is at a path that is no file; "" for nothing."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return first_line(getattr(error, "strerror", None) or error)
    return "a folder" if stat.S_ISDIR(mode) else "" if stat.S_ISREG(mode) else "a pipe or device"
