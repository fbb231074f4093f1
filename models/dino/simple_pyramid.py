"""A feature pyramid from the single map of a plain backbone such as a ViT."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn


class SimpleFeaturePyramid(nn.Module):
    """Resamples one map to each level on its own, without lateral connections (ViTDet, Li et al. 2022).

    A transposed convolution doubles the size and halves the channels, max pooling halves the size; every
    level ends in a layer norm over its channels. The neck projects the levels to the detector's width.

    channels: C of the map. octaves: of each level, log2 of its size over the map's: 2 is four times finer,
    0 the same, -1 half.
    """

    def __init__(self, channels: int, octaves: Sequence[int]):
        super().__init__()
        self.channels = tuple(channels >> max(octave, 0) for octave in octaves)
        self.levels = nn.ModuleList(_level(channels, octave) for octave in octaves)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> [(B, channels[i], h * 2^octaves[i], w * 2^octaves[i]), ...], sizes rounded up."""
        return [level(x) for level in self.levels]


def _level(channels: int, octave: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(octave):
        if i:
            layers.append(nn.GELU())
        layers += [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2), LayerNorm2d(channels // 2)]
        channels //= 2
    if octave <= 0:
        layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-octave)]
        layers.append(LayerNorm2d(channels))
    return nn.Sequential(*layers)
