"""From an image file to a network's input by numpy and Pillow alone: importing this imports no torch.

Training and evaluation share its decoding (`EncodedImage`) and sizes (`EvalSize`). `Preprocess` goes all the
way, for the runner of an exported model: it resizes with Pillow, evaluation with torchvision. The two differ
by at most one grey level: in up to a quarter of the values for some ratios of sizes, in fewer than 2 of 1000
from 640x480 and 2048x1536 to a short side of 800 pixels.
Whether an EXIF orientation is applied is decided by the annotations (`exif.view_of`); what is predicted on is
upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.images.exif import UPRIGHT, orientation_of, turned, turned_size
from datasets.images.header import decoding_reason, header_of
from datasets.images.limits import LimitError, open_image, read_file
from datasets.images.modes import to_rgb
from util.errors import UserError
from util.pixels import Size, normalise, padded_size

# A short side, in pixels, that is hardly one.
_THIN = 16


class ImageError(UserError):
    """An image that is missing, does not decode, or has another size than its annotations say."""


class MissingImageError(ImageError):
    """An image that is nowhere."""


class EncodedImage:
    """An image of which only the header was read.

    data:    the file's content, in any format that Pillow reads.
    label:   names it in messages.
    upright: the rule of its annotations' format: whether an EXIF orientation is applied.
    stated:  (height, width) by the annotations, 0 if unknown: it decides where it tells.
    header:  of the file.
    view:    how it is read, and why.
    size:    (height, width) of the whole image as read.
    Raises ImageError where `data` is not an image.
    """

    def __init__(self, data: bytes, label: str, *, upright: bool = False, stated: Size = (0, 0)) -> None:
        self.label = label
        try:
            self._image: Image.Image = open_image(data)
            header = header_of(self._image)
            if header.orientation == UPRIGHT:
                orientation = orientation_of(lambda offset, count: data[offset : offset + count], len(data))
                header = header._replace(orientation=orientation)
        except LimitError as error:
            raise ImageError(f"{label}: {error}") from None
        except Exception as error:
            raise ImageError(f"{label}: does not decode ({decoding_reason(error)})") from None
        self.header = header
        self.view = header.view(stated, upright=upright)
        self.size: Size = self.view.size

    def decode(self, at_least: Size | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB. May be called once.

        at_least: the (height, width) that is needed. A JPEG of twice that or more is decoded at 1/2, 1/4 or
            1/8 of its size, never below `at_least`, which saves most of the work; None decodes all of it.
        Raises ImageError where the data is damaged.
        """
        image, orientation = self._image, self.header.orientation
        try:
            if at_least is not None:
                height, width = turned_size(at_least, orientation) if self.view.upright else at_least
                image.draft(None, (width, height))
            image.load()
            pixels = to_rgb(image)
            # Pillow has turned a TIFF already.
            if self.view.upright != (image.format == "TIFF"):
                pixels = turned(pixels, orientation, back=not self.view.upright)
            return np.array(pixels)
        except Exception as error:
            raise ImageError(f"{self.label}: does not decode ({decoding_reason(error)})") from None


@dataclass(frozen=True)
class EvalSize:
    """Resizes the short side to `short_side`, or the long one to `max_size` where that is smaller.

    fixed_size: resizes to short_side high and max_size wide instead.
    """

    short_side: int
    max_size: int
    fixed_size: bool = False

    def target(self, size: Size) -> Size:
        """(height, width) in the file -> (height, width) that the network sees."""
        if self.fixed_size:
            return self.short_side, self.max_size
        return short_side_size(size, self.short_side, self.max_size)

    def largest(self, sizes: np.ndarray, *, together: bool) -> Size:
        """(height, width) of the largest batch of images of these (I, 2) sizes in the file, 0 where unknown.

        together: images of different shapes may meet in a batch.
        """
        known = [self.target((int(h), int(w))) for h, w in np.unique(sizes, axis=0) if h > 0 and w > 0]
        # Where the file has no sizes, any shape may come.
        known = known or [(self.max_size, self.max_size)]
        return padded_size(known) if together else max(known, key=lambda size: size[0] * size[1])


def short_side_size(size: Size, short: int, longest: int | None = None) -> Size:
    """(height, width) -> (height, width) with short side `short` and the same aspect, rounded as in DETR.

    longest: limit of the long side; the short side shrinks with it, to no less than a pixel.
    """
    height, width = size
    low, high = float(min(size)), float(max(size))
    thin = False
    if longest is not None and high / low * short > longest:
        short = max(1, round(longest * low / high))
        # Rounded to so few pixels, the same aspect would make the other side too long.
        thin = short < _THIN
    if height < width:
        return short, longest if thin and longest else max(1, int(short * width / height))
    return longest if thin and longest else max(1, int(short * height / width)), short


class NetworkInput(NamedTuple):
    """A batch as the model takes it.

    images:         (B, 3, H, W) float32, normalised; each image at the top left, padding 0.
    mask:           (B, H, W) bool, True where padded.
    sizes:          (height, width) of each image without its padding.
    original_sizes: (height, width) of the upright image, which detections refer to.
    """

    images: np.ndarray
    mask: np.ndarray
    sizes: tuple[Size, ...]
    original_sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Preprocess(EvalSize):
    """Images -> what the model's evaluation would give it.

    size_divisor: the padded height and width are multiples of this (`pad_size_divisor`).
    draft:        JPEGs are decoded at the scale that the resize needs (`decode_draft`).
    canvas:       (height, width) that every image is shrunk to fit in and the batch is padded to.
    """

    size_divisor: int = 1
    draft: bool = True
    canvas: Size | None = None

    def target(self, size: Size) -> Size:
        """As `EvalSize.target`, shrunk further where it does not fit the canvas."""
        height, width = super().target(size)
        high, wide = self.canvas or (height, width)
        if height <= high and width <= wide:
            return height, width
        if height * wide >= width * high:
            return high, max(1, width * high // height)
        return max(1, height * wide // width), wide

    def __call__(self, images: Sequence[str | Path | bytes | np.ndarray]) -> NetworkInput:
        """Files, their contents, or (H, W), (H, W, 3) or (H, W, 4) uint8 arrays: grey, RGB, RGBA.

        Files are read upright: an EXIF orientation is applied.
        Raises ImageError for a file that cannot be read or decoded.
        """
        resized, original_sizes = zip(*map(self._resized, images), strict=True)
        sizes = tuple(pixels.shape[:2] for pixels in resized)
        height, width = self.canvas or padded_size(sizes, self.size_divisor)
        batch = np.zeros((len(resized), height, width, 3), np.uint8)
        mask = np.ones((len(resized), height, width), bool)
        for i, (h, w) in enumerate(sizes):
            batch[i, :h, :w] = resized[i]
            mask[i, :h, :w] = False
        planes = np.empty((len(resized), 3, height, width), np.float32)
        normalise(batch.transpose(0, 3, 1, 2), sizes, planes)
        return NetworkInput(planes, mask, sizes, original_sizes)

    def _resized(self, image: str | Path | bytes | np.ndarray) -> tuple[np.ndarray, Size]:
        """(h, w, 3) uint8 RGB at the network's size, and the (height, width) before."""
        if isinstance(image, np.ndarray):
            pixels = np.asarray(to_rgb(Image.fromarray(image)))
            size: Size = pixels.shape[:2]
        else:
            encoded = _opened(image)
            size = encoded.size
            pixels = encoded.decode(self.target(size) if self.draft else None)
        height, width = self.target(size)
        if pixels.shape[:2] != (height, width):
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        return pixels, size


def _opened(image: str | Path | bytes) -> EncodedImage:
    if isinstance(image, bytes):
        return EncodedImage(image, f"an image of {len(image)} bytes", upright=True)
    try:
        return EncodedImage(read_file(image), str(image), upright=True)
    except OSError as error:
        raise ImageError(f"{image}: cannot be read ({error.strerror or error})") from None
