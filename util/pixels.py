"""Pixels of images: from bytes in a batch to what a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# ImageNet's statistics, which timm's and torchvision's backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised(pixels: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(B, 3, H, W) uint8 of any memory order -> float32, ImageNet's mean 0 and deviation 1, padding 0.

    sizes: (height, width) of each image, which lies at the top left.
    """
    result = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    # Channel by channel: planes are what fits a cache, and may be gathered from bytes that lie interleaved.
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        result[:, channel].copy_(pixels[:, channel]).mul_(1 / 255).sub_(mean).div_(std)
    for image, (height, width) in zip(result, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return result
