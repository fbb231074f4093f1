"""Sine position embeddings of feature maps and of boxes."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def _frequencies(dim: int, temperature: float, like: Tensor) -> Tensor:
    exponent = 2 * torch.div(torch.arange(dim, device=like.device), 2, rounding_mode="floor") / dim
    return (temperature**exponent).to(like.dtype)


def _interleave(angles: Tensor) -> Tensor:
    """(..., dim) angles -> sine at even and cosine at odd indices."""
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


class SinePosition(nn.Module):
    """Position embedding of a feature map (B, h, w) -> (B, D, h, w), y before x.

    A cell's coordinate is its number of valid cells from the top left, scaled to 0..2 pi over the valid area.
    Each axis has its own temperature (official `pe_temperatureH`, `pe_temperatureW`: 20).
    """

    def __init__(self, dim: int, temperature_h: float = 20.0, temperature_w: float = 20.0):
        super().__init__()
        if dim % 4:
            raise ValueError(f"dim {dim} must be a multiple of 4")
        self.axis_dim = dim // 2
        self.temperature_h = temperature_h
        self.temperature_w = temperature_w

    def forward(self, mask: Bool[Tensor, "B h w"], dtype: torch.dtype) -> Float[Tensor, "B D h w"]:
        """mask: (B, h, w) bool, True where padded."""
        valid = (~mask).to(dtype)
        y, x = valid.cumsum(1), valid.cumsum(2)
        y = y / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
        x = x / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
        y = _interleave(y[..., None] / _frequencies(self.axis_dim, self.temperature_h, y))
        x = _interleave(x[..., None] / _frequencies(self.axis_dim, self.temperature_w, x))
        return torch.cat((y, x), dim=-1).permute(0, 3, 1, 2)


def box_position(boxes_cxcywh: Float[Tensor, "*shape 4"], dim: int) -> Float[Tensor, "*shape {2*dim}"]:
    """Sine embedding of boxes: (..., 4) in 0..1 -> (..., 2 * dim), order y, x, w, h, temperature 10000."""
    angles = boxes_cxcywh * (2 * math.pi)
    angles = angles[..., None] / _frequencies(dim // 2, 10000.0, boxes_cxcywh)
    x, y, w, h = _interleave(angles).unbind(-2)
    return torch.cat((y, x, w, h), dim=-1)
