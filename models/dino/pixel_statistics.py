"""From ImageNet's normalisation, in which images come, to that of the pixels a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from util.pixels import IMAGENET_MEAN, IMAGENET_STD


def from_imagenet(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[Float[Tensor, "1 3 1 1"], Float[Tensor, "1 3 1 1"]]:
    """Scale and shift: (x - m) / s with ImageNet's m and s becomes (x - mean) / std of the same x in 0..1."""
    scale = torch.tensor(IMAGENET_STD) / torch.tensor(std)
    shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(mean)) / torch.tensor(std)
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)


class PixelStatistics(nn.Module):
    """(B, 3, H, W) in ImageNet's normalisation -> in that of `mean` and `std`, RGB in 0..1.

    Padding, 0 before, becomes ImageNet's mean colour. Scale and shift belong to the weights behind them, so
    they are part of the state.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__()
        scale, shift = from_imagenet(mean, std)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return x * self.scale + self.shift
