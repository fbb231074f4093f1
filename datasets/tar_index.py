"""Where the members of a tar lie: found by one walk over its headers, stored beside it.

The index of `images.tar` is `images.tar.index`; where that folder cannot be written it goes to
the cache folder (`util.cache`). It is made anew when the tar's size or time of change is not what it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from datasets.archives import MemberTable, Stamp, opened
from datasets.store import PackedStrings
from datasets.tar_headers import Member, TarError, members
from util.cache import cache_directory
from util.errors import UserError
from util.logging import get_logger

VERSION = 1
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
# Below this no line says that an index is made: a thousand small tars would bring a thousand lines.
_REPORTED_MEMBERS = 20_000


class TarIndex(MemberTable):
    """The regular files of a tar. Of members with the same name the last one counts, as when unpacking.

    path:    of the tar.
    names:   of the members, in the tar's order, without a leading "./".
    offsets, sizes: (len,) int64 bytes, where each begins and how long it is.
    fault:   why members after the last one listed are missing; "" for a tar that is whole.
    """

    def __init__(
        self,
        path: Path,
        stamp: Stamp,
        names: PackedStrings,
        offsets: np.ndarray,
        sizes: np.ndarray,
        *,
        order: np.ndarray | None = None,
        fault: str = "",
    ) -> None:
        super().__init__(names, order)
        self.path = path
        self.stamp = stamp
        self.offsets = offsets
        self.sizes = sizes
        self.fault = fault

    def read(self, row: int) -> bytes:
        """The content of a member. Raises UserError where the tar was changed since it was opened."""
        return opened(self.path, self.stamp).read(int(self.offsets[row]), int(self.sizes[row]))

    def __reduce__(self):
        # A spawned worker reads the stored index instead of receiving a copy.
        return open_tar, (self.path,)


def open_tar(path: str | Path) -> TarIndex:
    """The index of a tar: the stored one where it fits the tar, else made anew and stored.

    A tar that ends early or is damaged within is named in the log; its members up to there are served.
    Raises UserError for a file that is missing, compressed or no tar, or changes while it is walked.
    """
    path = Path(path).absolute()
    try:
        stamp = Stamp.of(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    places = (Path(f"{path}.index"), _cached_place(path))
    index = None
    for place in places:
        index = index or _load(place, path, stamp)
    if index is None:
        index = _build(path, stamp)
        _store(index, places)
    if index.fault:
        get_logger().warning("%s: %s; its %d whole members are used", path, index.fault, len(index))
    return index


def _build(path: Path, stamp: Stamp) -> TarIndex:
    started = time.perf_counter()
    found, fault = _walk(path, stamp)
    last = {member.name: row for row, member in enumerate(found)}
    if len(last) < len(found):
        found = [found[row] for row in sorted(last.values())]
    index = TarIndex(
        path,
        stamp,
        PackedStrings.pack([member.name for member in found]),
        np.array([member.offset for member in found], dtype=np.int64),
        np.array([member.size for member in found], dtype=np.int64),
        fault=fault,
    )
    if len(index) >= _REPORTED_MEMBERS:
        seconds = time.perf_counter() - started
        get_logger().info("%s: %d members listed in %.1f s", path, len(index), seconds)
    return index


def _walk(path: Path, stamp: Stamp) -> tuple[list[Member], str]:
    """Members, and what is wrong after the last one."""
    found, fault = [], ""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if hasattr(os, "posix_fadvise"):
            # Headers only: the system must not read the pictures ahead.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        try:
            found.extend(members(descriptor, stamp.size))
        except TarError as error:
            fault = str(error)
        if Stamp.of(descriptor) != stamp:
            raise UserError(f"{path}: was changed while its members were listed; start again when it is done")
        if fault and not found:
            kind = _COMPRESSED.get(os.pread(descriptor, 2, 0))
            reason = f"is compressed ({kind}); unpack it to a plain tar" if kind else f"is no tar ({fault})"
            raise UserError(f"{path}: {reason}")
    finally:
        os.close(descriptor)
    return found, fault


def _cached_place(path: Path) -> Path:
    key = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return cache_directory() / f"{path.name}-{key}.index"


def _load(place: Path, path: Path, stamp: Stamp) -> TarIndex | None:
    """A stored index; None where there is none that fits. The checksums of its parts are the zip format's."""
    try:
        with np.load(place) as file:
            about = json.loads(file["about"].tobytes())
            columns = {name: file[name] for name in file.files if name != "about"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        get_logger().warning("%s: is damaged (%s) and is made anew", place, error)
        return None
    if about.get("version") != VERSION or about["stamp"] != list(stamp):
        reason = "of another version" if about.get("version") != VERSION else f"older than {path.name}"
        get_logger().warning("%s: is %s and is made anew", place, reason)
        return None
    names = PackedStrings(columns["names"], columns["name_offsets"])
    return TarIndex(
        path,
        stamp,
        names,
        columns["offsets"],
        columns["sizes"],
        order=columns["order"],
        fault=about["fault"],
    )


def _store(index: TarIndex, places: tuple[Path, ...]) -> None:
    """Writes it to the first place that can be written; whole or not at all, whoever else writes there."""
    about = json.dumps({"version": VERSION, "stamp": index.stamp, "fault": index.fault})
    problem = None
    for place in places:
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                np.savez(
                    file,
                    about=np.frombuffer(about.encode(), np.uint8),
                    names=index.names.data,
                    name_offsets=index.names.offsets,
                    offsets=index.offsets,
                    sizes=index.sizes,
                    order=index.order,
                )
            os.replace(partial, place)
            return
        except OSError as error:
            problem = error
            with contextlib.suppress(OSError):
                partial.unlink()
    get_logger().warning("%s: its index could not be stored (%s)", index.path, problem)
