"""Walks the headers of a tar: ustar, GNU long names and pax. The contents of members are not read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
_END = bytes(BLOCK)
_REGULAR = {b"0", b"\0", b"7"}
_GNU_LONG_NAME, _GNU_SPARSE, _PAX = b"L", b"S", b"x"


class TarError(Exception):
    """The tar ends early, or goes on with something that is no header. Says at which byte."""


class Member(NamedTuple):
    """One regular file of a tar. offset: of its first byte, in the tar.  size: in bytes."""

    name: str
    offset: int
    size: int


def members(descriptor: int, length: int) -> Iterator[Member]:
    """The regular files of the tar that is open as `descriptor`, in order; `length` is its size in bytes.

    Names are without a leading "./". Raises TarError after the last whole member where the tar is not whole.
    """
    position, name = 0, None
    size_of_next = None
    while True:
        header = os.pread(descriptor, BLOCK, position)
        if header == _END:
            return
        if len(header) < BLOCK:
            raise TarError(f"ends at byte {length} without an end mark")
        if not _is_header(header):
            raise TarError(f"byte {position} is not the start of a member")
        kind = header[156:157]
        size = _number(header[124:136]) if size_of_next is None else size_of_next
        start = position + BLOCK
        if start + size > length:
            raise TarError(f"ends at byte {length}, within {name or _name(header)!r}")
        if kind == _GNU_SPARSE:
            raise TarError(f"byte {position}: a sparse member, which is not supported")
        position = start + -(-size // BLOCK) * BLOCK
        if kind == _GNU_LONG_NAME:
            name = _text(os.pread(descriptor, size, start).rstrip(b"\0"))
        elif kind == _PAX:
            fields = _pax_fields(os.pread(descriptor, size, start))
            name = _text(fields[b"path"]) if b"path" in fields else name
            size_of_next = int(fields[b"size"]) if b"size" in fields else None
        else:
            if kind in _REGULAR:
                yield Member((name or _name(header)).removeprefix("./"), start, size)
            name = size_of_next = None


def _is_header(block: bytes) -> bool:
    """Whether its checksum is right: the sum of all bytes, those of the checksum itself taken as spaces."""
    try:
        return _number(block[148:156]) == sum(block) - sum(block[148:156]) + 8 * ord(" ")
    except ValueError:
        return False


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _number(field: bytes) -> int:
    """Octal digits, or, as GNU tar writes large numbers, big-endian bytes after 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _pax_fields(data: bytes) -> dict[bytes, bytes]:
    """Records of `LENGTH key=value\\n`, the length counting all of it."""
    fields = {}
    while data:
        length = int(data.partition(b" ")[0] or b"0")
        if length <= 0:
            break
        key, _, value = data[:length].partition(b" ")[2].partition(b"=")
        fields[key] = value.removesuffix(b"\n")
        data = data[length:]
    return fields


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
