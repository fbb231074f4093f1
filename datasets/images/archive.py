"""What tar and zip share: look-up of members by name, and reading at any offset from any process."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.columns import PackedStrings
from datasets.images.limits import check_bytes
from util.errors import UserError

# Files that a process keeps open; the usual limit is 1024, and there may be a tar per class.
OPEN_FILES = 128


class Stamp(NamedTuple):
    """Size (bytes) and modification time (nanoseconds): if they differ, the file has changed."""

    size: int
    mtime: int

    @classmethod
    def of(cls, file: Path | int) -> Stamp:
        """Of a path or an open file."""
        status = os.stat(file)
        return cls(status.st_size, status.st_mtime_ns)


class MemberTable:
    """Members by name, in columns that are searched by bisection: no Python object per member.

    names: as in the archive, each once.  order: (len(names),) int64, the rows by name as UTF-8 bytes.
    """

    def __init__(self, names: PackedStrings, order: np.ndarray | None = None) -> None:
        self.names = names
        if order is None:
            order = np.array(sorted(range(len(names)), key=self._bytes), dtype=np.int64)
        self.order = order

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: str) -> int | None:
        """The row of a member, or None."""
        key = name.encode()
        place = bisect_right(self.order, key, key=self._bytes) - 1
        if place < 0 or self._bytes(self.order[place]) != key:
            return None
        return int(self.order[place])

    def below(self, folder: str) -> np.ndarray:
        """The rows of members whose names begin with `folder` (as "a/b/"; "" for all), in order of name."""
        key = folder.encode()
        first = bisect_left(self.order, key, key=self._bytes)
        # No byte of UTF-8 is 255: the first name that cannot begin with the key.
        return self.order[first : bisect_left(self.order, key + b"\xff", lo=first, key=self._bytes)]

    def _bytes(self, row: int) -> bytes:
        names = self.names
        return names.data[names.offsets[row] : names.offsets[row + 1]].tobytes()


class OpenFile:
    """A file open for positioned reads (`pread`), which are safe in threads and after a fork."""

    def __init__(self, path: Path, stamp: Stamp) -> None:
        self.path = path
        self.stamp = stamp
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        """Raises UserError if the file changed after its members were listed, OSError if it is unreadable."""
        if Stamp.of(self._descriptor) != self.stamp:
            raise UserError(f"{self.path}: changed after its members were listed; start again")
        check_bytes(size)
        try:
            return os.pread(self._descriptor, size, offset)
        except (OverflowError, ValueError) as error:  # a place that no file has
            raise OSError(f"byte {offset}: {error}") from None

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@lru_cache(maxsize=OPEN_FILES)
def opened(path: Path, stamp: Stamp) -> OpenFile:
    """The file at `path`, opened once per process. Files that leave the cache are closed when unused."""
    return OpenFile(path, stamp)
