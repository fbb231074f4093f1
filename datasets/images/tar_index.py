"""The members of a tar and their offsets: found by one pass over its headers, stored beside it.

The index of `images.tar` is `images.tar.index`, or a file in the cache folder (`util.files`) if that folder
is read-only. It may travel with its tar, so it is not tied to inodes: it is rebuilt when the tar's size or
modification time changed, or the header of one of a few members; and each member's header is compared when
the member is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from datasets.columns import PackedStrings
from datasets.images.archive import MemberTable, Stamp, opened
from datasets.images.tar_headers import BLOCK, Listing, list_members
from util.errors import UserError, first_line
from util.files import atomic_path, cache_directory
from util.logging import get_logger

VERSION = 3
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
# Every index has these bytes at this offset, damaged or not: the first member of a .npz file.
_FIRST_PART, _FIRST_PART_AT = b"about.npy", 30
_COLUMNS = ("names", "name_offsets", "offsets", "sizes", "checksums", "order")
# Smaller tars are not reported: a thousand of them would bring a thousand lines.
_REPORTED_MEMBERS = 20_000


class TarIndex(MemberTable):
    """The files of a tar. Of members with the same name the last one counts, as when unpacking.

    path:    of the tar.
    names:   of the members, in the tar's order, without a leading "./".
    offsets, sizes: (len,) int64 bytes.
    checksums: (len,) uint32, CRC-32 of each member's header, which ends where its content begins.
    fault:   which part of the tar cannot be used, and why; "" if all of it can.
    """

    def __init__(
        self,
        path: Path,
        stamp: Stamp,
        names: PackedStrings,
        offsets: np.ndarray,
        sizes: np.ndarray,
        checksums: np.ndarray,
        *,
        order: np.ndarray | None = None,
        fault: str = "",
    ) -> None:
        super().__init__(names, order)
        self.path = path
        self.stamp = stamp
        self.offsets = offsets
        self.sizes = sizes
        self.checksums = checksums
        self.fault = fault

    def read(self, row: int) -> bytes:
        """The content of a member.

        Raises OSError if it cannot be read, UserError if the tar changed since it was opened.
        """
        size = int(self.sizes[row])
        data = self.part(row, -BLOCK, BLOCK + size)
        if len(data) < BLOCK + size:
            raise OSError(f"has only {max(0, len(data) - BLOCK)} of its {size} bytes")
        if zlib.crc32(data[:BLOCK]) != self.checksums[row]:
            # Or the next start would use it again.
            _discard(self.path)
            raise UserError(
                f"{self.path}: its stored index is that of another tar ({self.names[row]} has moved); it is "
                "removed now: start again"
            )
        return data[BLOCK:]

    def part(self, row: int, start: int, count: int) -> bytes:
        """`count` bytes from byte `start` of a member, as they are. Raises as `read` does."""
        return opened(self.path, self.stamp).read(int(self.offsets[row]) + start, count)

    def fits(self) -> bool:
        """Whether the headers of the first, a middle and the last member are those that were listed."""
        for row in {0, len(self) // 2, len(self) - 1} if len(self) else ():
            if zlib.crc32(self.part(row, -BLOCK, BLOCK)) != self.checksums[row]:
                return False
        return True

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
        np.array([member.checksum for member in listing.members.values()], dtype=np.uint32),
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


def _load(place: Path, path: Path, stamp: Stamp) -> TarIndex | None:
    """A stored index, None if there is none that is up to date."""
    try:
        about, columns = _stored(place, stamp)
        index = None if columns is None else _index_of(path, stamp, about, columns)
    except FileNotFoundError:
        return None
    except Exception as error:  # damage can make numpy and zipfile raise anything
        get_logger().warning("%s: is damaged (%s); rebuilding it", place, first_line(error))
        return None
    if index is None or not index.fits():
        reason = "of another version" if about.get("version") != VERSION else f"older than {path.name}"
        get_logger().warning("%s: is %s; rebuilding it", place, reason)
        return None
    return index


def _stored(place: Path, stamp: Stamp) -> tuple[dict, dict[str, np.ndarray] | None]:
    """What an index file says of itself, and its columns, None where it is of another version or tar.

    Raises ValueError, and whatever numpy and zipfile raise, for a damaged one.
    """
    with zipfile.ZipFile(place) as archive:
        # We compress nothing: what is compressed would unpack to any size.
        if any(
            e.compress_type != zipfile.ZIP_STORED or e.file_size > e.compress_size for e in archive.infolist()
        ):
            raise ValueError("its parts are compressed")
    with np.load(place) as file:
        about = json.loads(file["about"].tobytes())
        if about["version"] != VERSION or about["stamp"] != list(stamp):
            return about, None
        columns = {name: file[name] for name in _COLUMNS}
    if about["digest"] != _digest(about["fault"], columns):
        raise ValueError("wrong checksum")
    return about, columns


def _index_of(path: Path, stamp: Stamp, about: dict, columns: dict[str, np.ndarray]) -> TarIndex:
    names = PackedStrings(columns["names"], columns["name_offsets"])
    places = (columns[name] for name in ("offsets", "sizes", "checksums"))
    return TarIndex(path, stamp, names, *places, order=columns["order"], fault=about["fault"])


def _digest(fault: str, columns: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(fault.encode(), digest_size=16)
    for name in _COLUMNS:
        digest.update(f"{name} {columns[name].dtype.str} {columns[name].shape}".encode())
        digest.update(np.ascontiguousarray(columns[name]).data)
    return digest.hexdigest()


def _store(index: TarIndex, places: list[Path]) -> None:
    """Writes it atomically to the first place that can be written."""
    columns: dict[str, Any] = {
        "names": index.names.data,
        "name_offsets": index.names.offsets,
        "offsets": index.offsets,
        "sizes": index.sizes,
        "checksums": index.checksums,
        "order": index.order,
    }
    about = {
        "version": VERSION,
        "stamp": index.stamp,
        "fault": index.fault,
        "digest": _digest(index.fault, columns),
    }
    problem = "no writable folder"
    for place in places:
        try:
            with atomic_path(place, durable=False) as partial, open(partial, "wb") as file:
                np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **columns)
            return
        except OSError as error:
            problem = str(error)
    get_logger().warning("%s: its index could not be stored (%s)", index.path, problem)


def _discard(path: Path) -> None:
    """Removes the stored index of a tar."""
    for place in _places(path):
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)
