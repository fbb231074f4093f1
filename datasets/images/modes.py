"""The form of an image's pixels, by Pillow's modes -> 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

# What a transparent pixel lies on: most cut-out objects are drawn and labelled so.
_BACKGROUND = (255, 255, 255, 255)
_ALPHA = {"LA", "PA", "RGBA", "RGBa"}
# TIFF's tags: the bits of a sample, and 0 where 0 is white.
_BITS, _PHOTOMETRIC = 258, 262


def to_rgb(image: Image.Image) -> Image.Image:
    """8 bits a channel, upper bits of more; transparent pixels lie on white.

    Raises ValueError for pixels without a defined range: floating-point numbers, 32-bit and signed integers.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which have no range")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """The upper 8 bits of grey; Pillow would cut off the larger values."""
    # Older versions of Pillow give 16-bit PNGs the mode of 32 bits.
    if image.mode == "I" and image.format != "PNG":
        raise ValueError("its pixels are 32-bit or signed integers, which have no range")
    tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    bits = int(np.atleast_1d(tags.get(_BITS, 16))[0])
    grey = (np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    # Pillow inverts these of 8 bits only.
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)
