"""The members of a zip: its central directory as columns, and positioned reads."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from datasets.columns import PackedStrings
from datasets.images.archive import MemberTable, Stamp, opened
from datasets.images.limits import check_bytes, leaves_folder
from util.errors import UserError, first_line
from util.logging import get_logger

_LOCAL_HEADER = 30
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ENCRYPTED = 0x1


class ZipIndex(MemberTable):
    """The files of a zip, stored or deflated.

    path: of the zip.  names: of the members, in the zip's order.
    columns: (len, 5) int64: offset of the local header, compressed size, size, compression method, CRC-32.
    """

    def __init__(self, path: Path, stamp: Stamp, names: PackedStrings, columns: np.ndarray) -> None:
        super().__init__(names)
        self.path = path
        self.stamp = stamp
        self.columns = columns

    def read(self, row: int) -> bytes:
        """The content of a member.

        Raises OSError for a damaged member, UserError if the zip changed since it was opened.
        """
        offset, packed, size, method, checksum = (int(v) for v in self.columns[row])
        file = opened(self.path, self.stamp)
        header = file.read(offset, _LOCAL_HEADER)
        # The lengths of name and extra field differ from those of the central directory.
        skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = file.read(offset + _LOCAL_HEADER + skipped, packed)
        if method == _DEFLATED:
            data = _inflated(data, size)
        if zlib.crc32(data) != checksum:
            raise OSError("wrong checksum")
        return data

    def __reduce__(self) -> tuple:
        return open_zip, (self.path,)


def open_zip(path: str | Path) -> ZipIndex:
    """The members of a zip. Of those with the same name the last one counts.

    Raises UserError for a file that is missing, unreadable, truncated, not a zip, encrypted, or compressed
    by another method than deflate.
    """
    path = Path(path).absolute()
    try:
        stamp = Stamp.of(path)
        with zipfile.ZipFile(path) as file:
            entries = {e.filename.removeprefix("./"): e for e in file.infolist() if _is_file(e)}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # damage can make zipfile raise anything
        raise UserError(f"{path}: not a zip file, or truncated ({first_line(error)})") from None
    if outside := {name for name in entries if leaves_folder(name)}:
        get_logger().warning(
            "%s: %d members whose names lead out of it are skipped (first: %r)",
            path, len(outside), min(outside),
        )  # fmt: skip
        entries = {name: entry for name, entry in entries.items() if name not in outside}
    for name, entry in entries.items():
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (_STORED, _DEFLATED):
            reason = "encrypted" if entry.flag_bits & _ENCRYPTED else "not compressed by deflate"
            raise UserError(f"{path}: {name} is {reason}; unpack the file and pack it again")
    rows = [_row(entry) for entry in entries.values()]
    return ZipIndex(path, stamp, PackedStrings.pack(list(entries)), np.array(rows, np.int64).reshape(-1, 5))


def _is_file(entry: zipfile.ZipInfo) -> bool:
    return bool(entry.filename) and not entry.is_dir()


def _row(entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """Of ZipIndex.columns. Numbers beyond any file's become one that cannot be read."""
    most = 2**63 - 1
    places = (min(n, most) for n in (entry.header_offset, entry.compress_size, entry.file_size))
    return (*places, entry.compress_type, entry.CRC)


def _inflated(data: bytes, size: int) -> bytes:
    """Unpacked, to no more than the `size` that the header says. Raises OSError."""
    check_bytes(size)
    unpacker = zlib.decompressobj(wbits=-15)
    try:
        unpacked = unpacker.decompress(data, max(size, 1))
        more = unpacker.decompress(unpacker.unconsumed_tail, 1)
    except zlib.error as error:
        raise OSError(f"does not unpack: {error}") from None
    if more or len(unpacked) != size:
        raise OSError(f"does not unpack to the {size} bytes that its header says")
    return unpacked
