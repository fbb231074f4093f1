"""The members of a tar and their offsets: found by one pass over its headers, stored beside it.

The index of `images.tar` is `images.tar.index`, or a file in the cache folder (`util.files`) if that folder
is read-only. It is rebuilt when the tar's size, modification time or the header of its last member changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

from datasets.columns import PackedStrings
from datasets.images.archive import MemberTable, Stamp, opened
from datasets.images.tar_headers import BLOCK, Listing, list_members
from util.errors import UserError
from util.files import atomic_path, cache_directory
from util.logging import get_logger

VERSION = 2
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
# Every index has these bytes at this offset, damaged or not: the first member of a .npz file.
_FIRST_PART, _FIRST_PART_AT = b"about.npy", 30
# Smaller tars are not reported: a thousand of them would bring a thousand lines.
_REPORTED_MEMBERS = 20_000


class TarIndex(MemberTable):
    """The files of a tar. Of members with the same name the last one counts, as when unpacking.

    path:    of the tar.
    names:   of the members, in the tar's order, without a leading "./".
    offsets, sizes: (len,) int64 bytes.
    fault:   which part of the tar cannot be used, and why; "" if all of it can.
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
        """The content of a member.

        Raises OSError if it cannot be read, UserError if the tar changed since it was opened.
        """
        size = int(self.sizes[row])
        data = opened(self.path, self.stamp).read(int(self.offsets[row]), size)
        if len(data) < size:
            raise OSError(f"has only {len(data)} of its {size} bytes")
        return data

    def __reduce__(self) -> tuple:
        # A spawned worker reads the stored index instead of receiving a copy.
        return open_tar, (self.path,)


def open_tar(path: str | Path) -> TarIndex:
    """The stored index of a tar if it is up to date, else a new one, which is stored.

    A truncated or damaged tar brings a warning; its members up to the damage can be read.
    Raises UserError for a file that is missing, unreadable, compressed, not a tar, or changes meanwhile.
    """
    path = Path(path).absolute()
    try:
        stamp = Stamp.of(path)
        places = _places(path)
        index = None
        for place in places:
            index = index or _load(place, path, stamp)
        if index is None:
            index = _build(path, stamp)
            _store(index, places)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if index.fault:
        get_logger().warning("%s: %s; using its %d complete members", path, index.fault, len(index))
    return index


def _build(path: Path, stamp: Stamp) -> TarIndex:
    started = time.perf_counter()
    listing = _walk(path, stamp)
    index = TarIndex(
        path,
        stamp,
        PackedStrings.pack(list(listing.members)),
        np.array([member.offset for member in listing.members.values()], dtype=np.int64),
        np.array([member.size for member in listing.members.values()], dtype=np.int64),
        fault="; ".join(listing.faults),
    )
    if len(index) >= _REPORTED_MEMBERS:
        seconds = time.perf_counter() - started
        get_logger().info("%s: %d members listed in %.1f s", path, len(index), seconds)
    return index


def _walk(path: Path, stamp: Stamp) -> Listing:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if hasattr(os, "posix_fadvise"):
            # Headers only: no read-ahead over the images.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        listing = list_members(descriptor, stamp.size)
        if Stamp.of(descriptor) != stamp:
            raise UserError(f"{path}: changed while its members were listed; start again when it is complete")
        if listing.damaged and not listing.members:
            kind = _COMPRESSED.get(os.pread(descriptor, 2, 0))
            fault = "; ".join(listing.faults)
            reason = (
                f"is compressed ({kind}); unpack it to a plain tar" if kind else f"not a tar file ({fault})"
            )
            raise UserError(f"{path}: {reason}")
    finally:
        os.close(descriptor)
    return listing


def _places(path: Path) -> list[Path]:
    """Where the index of a tar may be stored, best place first."""
    places = [Path(f"{path}.index")]
    if _is_foreign(places[0]):
        get_logger().warning("%s: not an index written by RichSem; leaving it as it is", places.pop())
    # There is no cache without a home folder.
    with contextlib.suppress(OSError):
        key = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
        places.append(cache_directory() / f"{path.name}-{key}.index")
    return places


def _is_foreign(place: Path) -> bool:
    """Whether it was written by another program, and must not be replaced."""
    try:
        with open(place, "rb") as file:
            head = file.read(_FIRST_PART_AT + len(_FIRST_PART))
    except OSError:
        return False
    return bool(head) and head[_FIRST_PART_AT:] != _FIRST_PART


def _last_header(path: Path, offsets: np.ndarray) -> str:
    """The header of the last member: it tells a tar from another one of the same size and time."""
    with open(path, "rb") as file:
        file.seek(max(0, int(offsets.max(initial=0)) - BLOCK))
        return file.read(BLOCK).hex()


def _load(place: Path, path: Path, stamp: Stamp) -> TarIndex | None:
    """A stored index, None if there is none that is up to date. The zip format has checksums."""
    try:
        with np.load(place) as file:
            about = json.loads(file["about"].tobytes())
            columns = {name: file[name] for name in file.files if name != "about"}
            version = about.get("version")
            fits = version == VERSION and about["stamp"] == list(stamp)
            fits = fits and about["last_header"] == _last_header(path, columns["offsets"])
    except FileNotFoundError:
        return None
    except Exception as error:  # damage can make numpy and zipfile raise anything
        get_logger().warning("%s: is damaged (%s); rebuilding it", place, error)
        return None
    if not fits:
        reason = "of another version" if version != VERSION else f"older than {path.name}"
        get_logger().warning("%s: is %s; rebuilding it", place, reason)
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


def _store(index: TarIndex, places: list[Path]) -> None:
    """Writes it atomically to the first place that can be written."""
    about = {
        "version": VERSION,
        "stamp": index.stamp,
        "last_header": _last_header(index.path, index.offsets),
        "fault": index.fault,
    }
    problem = "no writable folder"
    for place in places:
        try:
            with atomic_path(place, durable=False) as partial, open(partial, "wb") as file:
                np.savez(
                    file,
                    about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                    names=index.names.data,
                    name_offsets=index.names.offsets,
                    offsets=index.offsets,
                    sizes=index.sizes,
                    order=index.order,
                )
            return
        except OSError as error:
            problem = str(error)
    get_logger().warning("%s: its index could not be stored (%s)", index.path, problem)
