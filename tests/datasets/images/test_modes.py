"""Every form of pixels becomes 8-bit RGB as it is meant, or is refused by name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from datasets.images.preprocess import EncodedImage, ImageError
from inference.inputs import read_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pixels_of(data):
    return EncodedImage(data, "x").decode()


def of_colour(mode, colour=RED):
    return Image.new("RGB", (4, 4), colour).convert(mode)


def palette(alpha):
    """An image of one red pixel form, whose palette entry has this alpha."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 255, 0, *RED])
    return encoded(image, "PNG", transparency=bytes([255, alpha]))


def clear(mode, colour, kind, alpha=0):
    """Pixels of a colour that nobody sees."""
    return encoded(Image.new(mode, (4, 4), (*colour, alpha)), kind)


CASES = {
    "1": (encoded(Image.new("1", (4, 4), 1), "PNG"), WHITE),
    "L": (encoded(Image.new("L", (4, 4), 77), "PNG"), (77,) * 3),
    "LA": (clear("LA", (77,), "PNG", 255), (77,) * 3),
    "LA, clear": (clear("LA", (0,), "PNG"), WHITE),
    "RGBA": (clear("RGBA", RED, "PNG", 255), RED),
    "RGBA, clear": (clear("RGBA", (0, 0, 0), "PNG"), WHITE),
    "RGBA, half": (clear("RGBA", (0, 0, 0), "PNG", 128), (127,) * 3),
    "RGBA, WEBP": (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "WEBP", lossless=True), WHITE),
    "RGBA, TIFF": (clear("RGBA", (0, 0, 0), "TIFF"), WHITE),
    "RGB with a clear colour": (encoded(of_colour("RGB"), "PNG", transparency=RED), WHITE),
    "RGB with another clear colour": (encoded(of_colour("RGB"), "PNG", transparency=(0, 0, 0)), RED),
    "palette": (encoded(of_colour("P"), "PNG"), RED),
    "palette, opaque": (palette(255), RED),
    "palette, clear": (palette(0), WHITE),
    "palette, half": (palette(128), (255, 127, 127)),
    "GIF, clear": (encoded(Image.new("P", (4, 4), 0), "GIF", transparency=0), WHITE),
    "CMYK, JPEG as Adobe's": (encoded(of_colour("CMYK"), "JPEG"), RED),
    "CMYK, TIFF": (encoded(of_colour("CMYK"), "TIFF"), RED),
    "YCbCr, TIFF": (encoded(of_colour("YCbCr"), "TIFF"), RED),
    "16 bits, PNG": (encoded(Image.new("I;16", (4, 4), 77 << 8), "PNG"), (77,) * 3),
    "16 bits, little-endian": (encoded(Image.new("I;16", (4, 4), 77 << 8), "TIFF"), (77,) * 3),
    "16 bits, big-endian": (encoded(Image.new("I;16B", (4, 4), 77 << 8), "TIFF"), (77,) * 3),
    "16 bits, 0 is white": (
        encoded(Image.new("I;16", (4, 4), 77 << 8), "TIFF", tiffinfo={262: 0}), (255 - 77,) * 3,
    ),
    "first frame of a GIF": (
        encoded(of_colour("P"), "GIF", save_all=True, append_images=[of_colour("P", (0, 0, 9))]), RED,
    ),
    "first frame of a PNG": (
        encoded(of_colour("RGB"), "PNG", save_all=True, append_images=[of_colour("RGB", (0, 0, 9))]), RED,
    ),
    "first page of a TIFF": (
        encoded(of_colour("RGB"), "TIFF", save_all=True, append_images=[of_colour("RGB", (0, 0, 9))]), RED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_modes(case, tmp_path):
    data, colour = CASES[case]
    pixels = pixels_of(data)
    assert pixels.shape == (4, 4, 3) and pixels.dtype == np.uint8
    # JPEG's colours are not exact.
    assert np.abs(pixels.astype(int) - colour).max() <= 2
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(read_image(image)[0], pixels), "an opened image is as good as its file"


def test_12_bits_have_a_range_of_their_own():
    """Two samples in three bytes, which Pillow reads but does not write."""
    head = struct.pack("<2sHIH", b"II", 42, 8, 9)
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = head + entries + bytes(4) + bytes([0x00, 0x08, 0x00]) + bytes([0xFF, 0xFF, 0xFF])
    assert pixels_of(data)[0, :, 0].tolist() == [0, 0x80, 255, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.ones((4, 4), np.float32)), "x: does not decode .its pixels are floating-point"),
        (Image.fromarray(np.ones((4, 4), np.int32)), "x: does not decode .its pixels are 32-bit or signed"),
    ],
)
def test_what_has_no_range_is_refused_by_name(image, message):
    with pytest.raises(ImageError, match=message):
        pixels_of(encoded(image, "TIFF"))
    with pytest.raises(ImageError, match="an image: its pixels are"):
        read_image(image)
