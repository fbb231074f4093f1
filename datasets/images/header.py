"""Size of an image, and whether it is complete, from a few of its bytes and without decoding it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from datasets.images.limits import LimitError, check_bytes, check_pixels, open_image

Reader = Callable[[int, int], bytes]
"""(offset, count) -> bytes of a file."""

_HEAD, _TAIL = 1 << 15, 512
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# JPEG's start-of-frame markers are C0..CF without these, which are tables.
_NO_FRAME = {0xC4, 0xC8, 0xCC}


class DamagedError(Exception):
    """A file that is empty, truncated, not an image, or does not decode. The message says which."""


def inspect_file(path: str | Path, decode: bool = False) -> tuple[int, int]:
    """`inspect` for a file. Raises DamagedError, and OSError if it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        return inspect(lambda offset, count: os.pread(descriptor, count, offset), size, decode)
    finally:
        os.close(descriptor)


def inspect(read: Reader, size: int, decode: bool = False) -> tuple[int, int]:
    """(height, width) of an image of `size` bytes as stored (an EXIF orientation is not applied).

    Its head gives the size, its tail shows whether it is complete; a JPEG or PNG without an end mark is
    decoded to be sure. decode: decodes every image, which finds any damage.
    Raises DamagedError, also for an image beyond the `limits`.
    """
    if size == 0:
        raise DamagedError("is empty")
    try:
        check_bytes(size)
        head = read(0, min(size, _HEAD))
        found = None
        if not decode and _has_end(head, read, size):
            found = jpeg_size(head) or _pillow_size(head)
        found = found or _decoded_size(read(0, size), decode or head.startswith((_JPEG, _PNG)))
        check_pixels(*found)
    except LimitError as error:
        raise DamagedError(str(error)) from None
    return found


def jpeg_size(head: bytes) -> tuple[int, int] | None:
    """(height, width) by the frame header of a JPEG; None if `head` does not contain one."""
    if not head.startswith(_JPEG):
        return None
    place = len(_JPEG)
    while place + 9 <= len(head):
        marker = head[place + 1]
        if head[place] != 0xFF:
            return None
        if marker == 0xFF:  # padding
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = (int.from_bytes(head[place + i : place + i + 2], "big") for i in (5, 7))
            return (height, width) if height and width else None
        else:
            place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None


def _has_end(head: bytes, read: Reader, size: int) -> bool:
    """False if a JPEG or PNG lacks its end mark."""
    mark = b"\xff\xd9" if head.startswith(_JPEG) else b"IEND" if head.startswith(_PNG) else b""
    return not mark or mark in (head if size <= len(head) else read(size - _TAIL, _TAIL))[-_TAIL:]


def decoding_reason(error: Exception) -> str:
    """Why Pillow cannot read an image. Damage can make it raise any exception."""
    # Pillow adds the address of the buffer.
    return str(error).partition(" <_io.BytesIO")[0] or type(error).__name__


def _pillow_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) by Pillow; None if it needs more than `data`."""
    try:
        with open_image(data) as image:
            return image.height, image.width
    except LimitError:
        raise
    except Exception:  # `_decoded_size` gets all of it, and says what is wrong
        return None


def _decoded_size(data: bytes, decode: bool) -> tuple[int, int]:
    try:
        with open_image(data) as image:
            if decode:
                image.load()
            return image.height, image.width
    except LimitError:
        raise
    except Exception as error:
        raise DamagedError(f"does not decode ({decoding_reason(error)})") from None
