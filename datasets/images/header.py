"""Size and orientation of an image, and whether it is complete, from a few of its bytes: undecoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datasets.images.exif import (
    FRAMES,
    ORIENTATION,
    TURNS,
    UPRIGHT,
    Reader,
    View,
    jpeg_segments,
    orientation_of,
    turned_size,
    view_of,
)
from datasets.images.limits import LimitError, check_bytes, check_kind, check_pixels, open_image
from util.pixels import Size

_HEAD, _TAIL = 1 << 15, 512
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Components of a JPEG -> the mode that Pillow gives it.
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# TIFF's tags.
_WIDTH, _HEIGHT = 256, 257


class DamagedError(Exception):
    """A file that is empty, truncated, not an image, or does not decode. The message says which."""


class Header(NamedTuple):
    """stored: (height, width) in the file.  mode: Pillow's name of its pixels' form: L, RGB, I;16.
    orientation: EXIF's, 1 to 8; 1: upright as stored."""

    stored: Size
    mode: str
    orientation: int = UPRIGHT

    @property
    def upright(self) -> Size:
        """(height, width) with its orientation applied."""
        return turned_size(self.stored, self.orientation)

    def view(self, stated: Size = (0, 0), *, upright: bool) -> View:
        """As what it is read: see `view_of`."""
        return view_of(self.stored, self.orientation, stated, upright=upright)


@contextmanager
def open_parts(path: str | Path) -> Iterator[tuple[Reader, int]]:
    """A file's reader and its bytes. Raises OSError if it cannot be read."""
    check_kind(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        yield lambda offset, count: os.pread(descriptor, count, offset), size
    finally:
        os.close(descriptor)


def inspect_file(path: str | Path, decode: bool = False) -> Header:
    """`inspect` for a file. Raises DamagedError, and OSError if it cannot be read."""
    with open_parts(path) as (read, size):
        return inspect(read, size, decode)


def inspect(read: Reader, size: int, decode: bool = False) -> Header:
    """The header of an image of `size` bytes.

    Its head gives it, its tail shows whether it is complete; a JPEG or PNG without an end mark is
    decoded to be sure. decode: decodes every image, which finds any damage.
    Raises DamagedError, also for an image beyond the `limits`.
    """
    if size == 0:
        raise DamagedError("is empty")
    try:
        check_bytes(size)
        head = read(0, min(size, _HEAD))
        beyond = _with_head(read, head)
        found = None
        if not decode and _has_end(head, read, size):
            found = (head.startswith(_JPEG) and jpeg_header(beyond)) or _pillow_header(head)
        found = found or _decoded_header(read(0, size), decode or head.startswith((_JPEG, _PNG)))
        check_pixels(*found.stored)
    except LimitError as error:
        raise DamagedError(str(error)) from None
    if found.orientation == UPRIGHT:
        found = found._replace(orientation=orientation_of(beyond, size))
    return found


def jpeg_header(read: Reader) -> Header | None:
    """By the frame header of a JPEG, without its orientation; None if it has no such header."""
    for marker, place, length in jpeg_segments(read):
        if marker in FRAMES:
            frame = read(place, 6)
            if length < 6 or len(frame) < 6:
                return None
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            mode = _JPEG_MODES.get(frame[5], "")
            return Header((height, width), mode) if height and width and mode else None
    return None


def header_of(image: Image.Image) -> Header:
    """Of an image that Pillow opened; an orientation only of a TIFF, which Pillow applies as it decodes."""
    if image.format != "TIFF":
        return Header((image.height, image.width), image.mode)
    tags = image.tag_v2  # type: ignore[attr-defined]
    orientation = tags.get(ORIENTATION, UPRIGHT)
    orientation = orientation if orientation in TURNS else UPRIGHT
    stored = image.height, image.width
    if (tags.get(_HEIGHT), tags.get(_WIDTH)) != stored:  # Pillow may have turned the size already
        stored = turned_size(stored, orientation)
    return Header(stored, image.mode, orientation)


def _with_head(read: Reader, head: bytes) -> Reader:
    """The same reader, but what lies in `head` is not read again."""

    def part(offset: int, count: int) -> bytes:
        return head[offset : offset + count] if offset + count <= len(head) else read(offset, count)

    return part


def _has_end(head: bytes, read: Reader, size: int) -> bool:
    """False if a JPEG or PNG lacks its end mark."""
    mark = b"\xff\xd9" if head.startswith(_JPEG) else b"IEND" if head.startswith(_PNG) else b""
    return not mark or mark in (head if size <= len(head) else read(size - _TAIL, _TAIL))[-_TAIL:]


def decoding_reason(error: Exception) -> str:
    """Why Pillow cannot read an image. Damage can make it raise any exception."""
    # Pillow adds the address of the buffer.
    return str(error).partition(" <_io.BytesIO")[0] or type(error).__name__


def _pillow_header(data: bytes) -> Header | None:
    """By Pillow; None if it needs more than `data`."""
    try:
        with open_image(data) as image:
            return header_of(image)
    except LimitError:
        raise
    except Exception:  # `_decoded_header` gets all of it, and says what is wrong
        return None


def _decoded_header(data: bytes, decode: bool) -> Header:
    try:
        with open_image(data) as image:
            found = header_of(image)
            if decode:
                image.load()
            return found
    except LimitError:
        raise
    except Exception as error:
        raise DamagedError(f"does not decode ({decoding_reason(error)})") from None
