"""Pixels of images: from bytes in a batch to what a network takes. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# ImageNet's statistics, which timm's and torchvision's backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Size = tuple[int, int]
"""(height, width) in pixels."""


def padded_size(sizes: Sequence[Size], divisor: int = 1) -> Size:
    """The largest height and width, rounded up to multiples of `divisor`."""
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    return height, width


def normalise(pixels: Any, sizes: Sequence[Size], result: Any) -> Any:
    """Fills `result` with `pixels`: ImageNet's mean 0 and standard deviation 1, padding 0; returns it.

    pixels: (B, 3, H, W) uint8 RGB in any memory order, a tensor or an array.
    sizes:  (height, width) of each image, which lies at the top left.
    result: (B, 3, H, W) float32 of the same kind; its content does not matter.
    """
    # Channel by channel: planes are what fits a cache, and may be gathered from bytes that lie interleaved.
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        plane = result[:, channel]
        plane[:] = pixels[:, channel]
        plane *= 1 / 255
        plane -= mean
        plane /= std
    for image, (height, width) in zip(result, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return result
