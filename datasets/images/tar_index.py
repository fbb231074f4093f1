"""Where the members of a tar lie: found by one walk over its headers, stored beside it.

The index of `images.tar` is `images.tar.index`; where that folder cannot be written it goes to
the cache folder (`util.files`). It is rebuilt when the tar's size, its time of change or the header of its
last member is not what it was.
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
# With these bytes at this place an index begins, damaged or not: it is the first part of a zip by numpy.
_FIRST_PART, _FIRST_PART_AT = b"about.npy", 30
# Below this no line says that an index is made: a thousand small tars would bring a thousand lines.
_REPORTED_MEMBERS = 20_000


class TarIndex(MemberTable):
    """The files of a tar. Of members with the same name the last one counts, as when unpacking.

    path:    of the tar.
    names:   of the members, in the tar's order, without a leading "./".
    offsets, sizes: (len,) int64 bytes, where each begins and how long it is.
    fault:   what of the tar is not served, and why; "" where all of it is.
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

        Raises OSError where it cannot be read, UserError where the tar was changed since it was opened.
        """
        size = int(self.sizes[row])
        data = opened(self.path, self.stamp).read(int(self.offsets[row]), size)
        if len(data) < size:
            raise OSError(f"only {len(data)} of its {size} bytes are there")
        return data

    def __reduce__(self):
        # A spawned worker reads the stored index instead of receiving a copy.
        return open_tar, (self.path,)


def open_tar(path: str | Path) -> TarIndex:
    """The index of a tar: the stored one if it fits the tar, else a new one, which is stored.

    A tar that ends early or is damaged within is named in the log; its members up to there are served.
    Raises UserError for a file that is missing, cannot be read, is compressed or no tar, or changes while it
    is walked.
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
        get_logger().warning("%s: %s; its %d whole members are used", path, index.fault, len(index))
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
            # Headers only: the system must not read the images ahead.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        listing = list_members(descriptor, stamp.size)
        if Stamp.of(descriptor) != stamp:
            raise UserError(f"{path}: was changed while its members were listed; start again when it is done")
        if listing.damaged and not listing.members:
            kind = _COMPRESSED.get(os.pread(descriptor, 2, 0))
            fault = "; ".join(listing.faults)
            reason = f"is compressed ({kind}); unpack it to a plain tar" if kind else f"is no tar ({fault})"
            raise UserError(f"{path}: {reason}")
    finally:
        os.close(descriptor)
    return listing


def _places(path: Path) -> list[Path]:
    """Where the index of a tar may be, the best place first."""
    places = [Path(f"{path}.index")]
    if _is_foreign(places[0]):
        get_logger().warning("%s: is no index of RichSem's and is left as it is", places.pop())
    # Without a home folder there is no cache.
    with contextlib.suppress(OSError):
        key = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
        places.append(cache_directory() / f"{path.name}-{key}.index")
    return places


def _is_foreign(place: Path) -> bool:
    """Whether it is a file of another program, which must not be replaced."""
    try:
        with open(place, "rb") as file:
            head = file.read(_FIRST_PART_AT + len(_FIRST_PART))
    except OSError:
        return False
    return bool(head) and head[_FIRST_PART_AT:] != _FIRST_PART


def _last_header(path: Path, offsets: np.ndarray) -> str:
    """The header of the last member: another one in a tar that was replaced by one of its size and time."""
    with open(path, "rb") as file:
        file.seek(max(0, int(offsets.max(initial=0)) - BLOCK))
        return file.read(BLOCK).hex()


def _load(place: Path, path: Path, stamp: Stamp) -> TarIndex | None:
    """A stored index; None where there is none that fits. The checksums of its parts are the zip format's."""
    try:
        with np.load(place) as file:
            about = json.loads(file["about"].tobytes())
            columns = {name: file[name] for name in file.files if name != "about"}
            version = about.get("version")
            fits = version == VERSION and about["stamp"] == list(stamp)
            fits = fits and about["last_header"] == _last_header(path, columns["offsets"])
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy and zipfile raise whatever damage leads them to
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
    """Writes it to the first place that can be written; whole or not at all, whoever else writes there."""
    about = {
        "version": VERSION,
        "stamp": index.stamp,
        "last_header": _last_header(index.path, index.offsets),
        "fault": index.fault,
    }
    problem = "there is no place for it"
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
            problem = error
    get_logger().warning("%s: its index could not be stored (%s)", index.path, problem)
