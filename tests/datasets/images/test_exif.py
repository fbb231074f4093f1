"""EXIF orientations: found in the few bytes of a header, and turned as Pillow turns them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from datasets.images.exif import orientation_of, view_of
from datasets.images.header import inspect
from datasets.images.preprocess import EncodedImage

SCENE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
ALL = range(1, 9)


def image_with(orientation, kind="PNG", pixels=SCENE, **options):
    """The bytes of an image whose stored pixels are `pixels`."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, kind, exif=exif, **options)
    return file.getvalue()


def reader(data):
    return lambda offset, count: data[offset : offset + count]


def found(data):
    return orientation_of(reader(data), len(data))


LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("kind", ["JPEG", *LOSSLESS])
def test_pixels_are_read_upright_or_as_stored(kind, orientation):
    data = image_with(orientation, kind, **LOSSLESS.get(kind, {}))
    header = inspect(reader(data), len(data))
    upright = EncodedImage(data, "x", upright=True)
    stored = EncodedImage(data, "x")
    assert upright.header == stored.header == header
    assert (header.orientation, header.stored) == (orientation, SCENE.shape[:2])
    assert header.upright == upright.size and stored.size == header.stored
    # Pillow itself has turned a TIFF already.
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    pixels = upright.decode()
    assert pixels.shape[:2] == upright.size and np.array_equal(pixels, expected)
    as_stored = stored.decode()
    assert as_stored.shape == SCENE.shape and np.abs(as_stored.astype(int) - SCENE).mean() < 20
    assert kind == "JPEG" or np.array_equal(as_stored, SCENE)


@pytest.mark.parametrize("orientation", ALL)
def test_a_turned_jpeg_is_decoded_at_the_scale_that_is_needed(orientation):
    big = SCENE.repeat(4, 0).repeat(4, 1)
    data = image_with(orientation, "JPEG", big)
    image = EncodedImage(data, "x", upright=True)
    height, width = image.size
    scaled = image.decode((height // 4, width // 4))
    assert image.size == (height, width) and scaled.shape[:2] == (height // 4, width // 4)
    whole = EncodedImage(data, "x", upright=True).decode()
    assert np.abs(whole[2::4, 2::4].astype(int) - scaled).mean() < 30, (
        "the same scene, not another turn of it"
    )


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif_block(order=">", kind=3, tag=0x0112, value=6, count=1):
    """A directory with a single entry."""
    body = {3: "H", 4: "I", 1: "B"}[kind]
    start = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{body}", value).ljust(4, b"\0")
    return start + struct.pack(f"{order}IH", 8, count) + entry


def test_a_png_may_have_it_behind_its_pixels():
    plain = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(plain, "PNG")
    data, end = plain.getvalue()[:-12], plain.getvalue()[-12:]
    late = data + chunk(b"eXIf", exif_block()) + chunk(b"tEXt", b"Comment\0eXIf") + end
    assert found(plain.getvalue()) == 1
    comment = data + chunk(b"tEXt", b"a\0eXIf" + exif_block()) + end
    assert found(comment) == 1, "the letters alone are no such chunk"
    without_comment = data + chunk(b"eXIf", exif_block()) + end
    assert found(without_comment) == 6 and EncodedImage(without_comment, "x", upright=True).size == (300, 200)
    assert found(late) == 6


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_forms_of_the_tag(order, kind):
    png = image_with(1)
    head, rest = png[:33], png[33:]
    assert found(head + chunk(b"eXIf", exif_block(order, kind)) + rest) == 6


@pytest.mark.parametrize(
    "block",
    [
        b"", b"MM", b"MM\0*", b"MM\0*\xff\xff\xff\xff", exif_block()[:-5], exif_block(value=9),
        exif_block(value=0), exif_block(tag=0x0113), exif_block(count=0), b"XX" + exif_block()[2:],
    ],
)  # fmt: skip
def test_what_is_no_orientation(block):
    png = image_with(1)
    assert found(png[:33] + chunk(b"eXIf", block) + png[33:]) == 1


def test_the_stated_size_decides_where_it_tells():
    for rule in (False, True):
        for orientation in (5, 6, 7, 8):
            assert view_of((4, 6), orientation, (6, 4), upright=rule) == ((6, 4), True, True)
            assert view_of((4, 6), orientation, (4, 6), upright=rule) == ((4, 6), False, True)
            size = (6, 4) if rule else (4, 6)
            assert view_of((4, 6), orientation, upright=rule) == (size, rule, False)
            assert view_of((4, 6), orientation, (5, 5), upright=rule) == (size, rule, False)
            assert view_of((5, 5), orientation, (5, 5), upright=rule) == ((5, 5), rule, False)
        for orientation in (1, 2, 3, 4):
            assert view_of((4, 6), orientation, (4, 6), upright=rule) == ((4, 6), rule, False)
