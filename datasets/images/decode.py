"""From an image's bytes to its pixels.

Pixels are as they lie in the file: an EXIF orientation is not applied, as in the tools of LVIS and COCO,
whose boxes mean the pixels as they are stored.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from datasets.images.header import decoding_reason


class ImageError(Exception):
    """One image that is missing, does not decode or has another size than its annotations say."""


class EncodedImage:
    """An image of which only the header was read.

    data: the file's content, of whatever format Pillow knows.  label: names it in messages.
    size: (height, width) of the whole image.
    Raises ImageError for what is no image.
    """

    def __init__(self, data: bytes, label: str) -> None:
        self.label = label
        try:
            self._image = Image.open(io.BytesIO(data))
        except Exception as error:
            raise ImageError(f"{label}: does not decode ({decoding_reason(error)})") from None
        self.size = self._image.height, self._image.width

    def decode(self, at_least: tuple[int, int] | None = None) -> tv_tensors.Image:
        """(3, H, W) uint8 RGB, a view of memory in the order H, W, 3. May be called once.

        at_least: the (height, width) that is needed. A JPEG of twice that or more is decoded at 1/2, 1/4 or
            1/8 of its size, never below `at_least`, which saves most of the work; None decodes all of it.
        Raises ImageError where the data is damaged.
        """
        image = self._image
        try:
            if at_least is not None:
                image.draft(None, (at_least[1], at_least[0]))
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
        except Exception as error:
            raise ImageError(f"{self.label}: does not decode ({decoding_reason(error)})") from None
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
