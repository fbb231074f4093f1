"""What an image file may be: limits on what a file from elsewhere can make us do."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from PIL import Image

# The formats whose suffixes `class_sources` looks for. Of others, Pillow starts Ghostscript for EPS.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# Pixels are decoded to 3 bytes each, some of them twice: 0.7 GB. Cameras of telephones have 108 million.
MAX_PIXELS = 120_000_000
# Bytes of a file: more than MAX_PIXELS of any format take.
MAX_BYTES = 2**30


class LimitError(OSError):
    """A file beyond these limits. The message says by how much."""


def open_image(data: bytes) -> Image.Image:
    """An image of which only the header was read. Raises LimitError, and whatever Pillow raises."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    check_pixels(image.height, image.width)
    return image


def check_pixels(height: int, width: int) -> None:
    """Raises LimitError."""
    if height * width > MAX_PIXELS:
        million = height * width / 1e6
        raise LimitError(
            f"is {width}x{height}: {million:.0f} million pixels, of {MAX_PIXELS / 1e6:.0f} allowed"
        )


def check_bytes(size: int) -> None:
    """Raises LimitError for a file of this size."""
    if size > MAX_BYTES:
        raise LimitError(f"has {size / 2**20:.0f} MiB, of {MAX_BYTES >> 20} allowed")


def check_kind(path: str | Path) -> None:
    """Raises OSError for a pipe, which would be waited for, and a device; also for what is not there."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or device, not a file")


def read_file(path: str | Path) -> bytes:
    """The content of a file. Raises LimitError, and OSError where it cannot be read."""
    check_kind(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        check_bytes(size)
        return file.read(size)


def leaves_folder(name: str) -> bool:
    """Whether a name, relative to a folder, leads out of it."""
    return name.startswith("/") or (".." in name and ".." in name.split("/"))
