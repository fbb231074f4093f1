"""Readers of image files."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.images.header import DamagedError, inspect_file
from datasets.images.preprocess import EncodedImage
from tests.fuzz.readers import reader
from util.errors import UserError


def _image(kind: str) -> bytes:
    """With an EXIF orientation."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def _read_upright(path: Path) -> None:
    """Decodes it as its header says, which training reads by itself for the size."""
    image = EncodedImage(path.read_bytes(), str(path), upright=True)
    try:
        header = inspect_file(path)
    except DamagedError as error:
        raise UserError(str(error)) from None
    assert header.upright == image.size == image.decode().shape[:2]


@reader("image.jpg", _image("JPEG"))
def use_jpeg(path: Path) -> None:
    _read_upright(path)


@reader("image.png", _image("PNG"))
def use_png(path: Path) -> None:
    _read_upright(path)


@reader("image.webp", _image("WEBP"))
def use_webp(path: Path) -> None:
    _read_upright(path)


@reader("image.tif", _image("TIFF"))
def use_tiff(path: Path) -> None:
    _read_upright(path)
