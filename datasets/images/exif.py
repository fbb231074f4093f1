"""The EXIF orientation of an image file, from a few of its bytes: by what turn its pixels come upright.

Nothing here raises for damaged data: what cannot be understood has no orientation. As in browsers, an
orientation in XMP does not count.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image
from PIL.Image import Transpose

from util.pixels import Size

Reader = Callable[[int, int], bytes]
"""(offset, count) -> bytes of a file, fewer at its end."""

# EXIF's tag, which TIFF has too, and its value for pixels that are upright as stored.
ORIENTATION, UPRIGHT = 0x0112, 1
# Its other values: what makes the stored pixels upright.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Those that exchange height and width.
_QUARTER_TURNS = (5, 6, 7, 8)
_INVERSE = {Transpose.ROTATE_270: Transpose.ROTATE_90, Transpose.ROTATE_90: Transpose.ROTATE_270}

_JPEG, _PNG, _RIFF, _WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
_EXIF = b"Exif\0\0"
_APP1 = 0xE1
# Start of frame, and of the pixels: what follows is no header. C4, C8 and CC are tables.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PIXELS = 0xDA
# An EXIF block fits one segment of a JPEG; a PNG may have it behind its pixels.
_MOST_EXIF = 1 << 16
_SHORT, _LONG = 3, 4


class View(NamedTuple):
    """How the pixels of a file are read.

    size:    (height, width) as read.
    upright: whether they are turned by their orientation; else they are as stored.
    told:    whether the size that the annotations state says so; otherwise it is the rule of their format.
    """

    size: Size
    upright: bool
    told: bool


def view_of(stored: Size, orientation: int, stated: Size = (0, 0), *, upright: bool) -> View:
    """How an image is read: by its stated size where this tells, else by the rule of the annotations' format.

    stored: (height, width) in the file.  orientation: 1 to 8.  stated: by the annotations, 0 if unknown.
    upright: the rule.
    """
    turned = turned_size(stored, orientation)
    told = turned != stored and tuple(stated) in (stored, turned)
    if told:
        upright = tuple(stated) == turned
    return View(turned if upright else stored, upright, told)


def turned_size(size: Size, orientation: int) -> Size:
    """(height, width) as stored -> upright, or back."""
    return (size[1], size[0]) if orientation in _QUARTER_TURNS else size


def turned(image: Image.Image, orientation: int, *, back: bool = False) -> Image.Image:
    """Stored pixels made upright; back: upright ones as stored."""
    if orientation not in TURNS:
        return image
    turn = TURNS[orientation]
    return image.transpose(_INVERSE.get(turn, turn) if back else turn)


def orientation_of(read: Reader, size: int) -> int:
    """1 to 8, of a JPEG, PNG or WEBP of `size` bytes; 1 if it has none, or is another format."""
    start = read(0, 12)
    if start.startswith(_JPEG):
        return _first(_jpeg_exif(read))
    if start.startswith(_PNG):
        return _first(_png_exif(read, size))
    if start.startswith(_RIFF) and start[8:12] == _WEBP:
        return _first(_webp_exif(read))
    return UPRIGHT


def jpeg_segments(read: Reader) -> Iterator[tuple[int, int, int]]:
    """(marker, offset, size) of what each marker segment of a JPEG holds, up to its pixels."""
    place = len(_JPEG)
    while len(head := read(place, 4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == _PIXELS or length < 2:
            return
        yield marker, place + 4, length - 2
        place += 2 + length


def _first(blocks: Iterator[bytes]) -> int:
    """The orientation of the first EXIF block."""
    return _orientation_in(next(blocks, b"").removeprefix(_EXIF))


def _jpeg_exif(read: Reader) -> Iterator[bytes]:
    for marker, place, length in jpeg_segments(read):
        if marker == _APP1 and read(place, len(_EXIF)) == _EXIF:
            yield read(place, length)
        elif marker in FRAMES:
            return


def _png_exif(read: Reader, size: int) -> Iterator[bytes]:
    place = len(_PNG)
    while len(head := read(place, 8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf" and length <= _MOST_EXIF:
            yield read(place + 8, length)
        if kind in (b"IDAT", b"IEND"):
            break
        place += 12 + length
    # Behind the pixels: chunks cannot be followed from the end, but a checksum leaves no doubt.
    tail_start = max(place, size - _MOST_EXIF)
    tail = read(tail_start, size - tail_start)
    found = len(tail)
    while (found := tail.rfind(b"eXIf", 4, found)) >= 0:
        end = found + 4 + int.from_bytes(tail[found - 4 : found], "big")
        if end < len(tail) and tail[end : end + 4] == zlib.crc32(tail[found:end]).to_bytes(4, "big"):
            yield tail[found + 4 : end]


def _webp_exif(read: Reader) -> Iterator[bytes]:
    place = 12
    while len(head := read(place, 8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF" and length <= _MOST_EXIF:
            yield read(place + 8, length)
        place += 8 + length + length % 2


def _orientation_in(block: bytes) -> int:
    """Of the first directory of an EXIF block, which has the form of a TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    count = int.from_bytes(block[start : start + 2], "little" if order == "<" else "big")
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", block, place)
        if tag == ORIENTATION:
            code = {_SHORT: "H", _LONG: "I"}.get(kind, "B")
            (value,) = struct.unpack_from(f"{order}{code}", block, place + 8)
            return value if value in TURNS else UPRIGHT
    return UPRIGHT
