"""Sine position embeddings of feature maps and of boxes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.dino.kept import Kept
from models.dino.pyramid import Cells, valid_cells

_kept = Kept()


def _frequencies(dim: int, temperature: float, like: Tensor) -> Float[Tensor, " dim"]:
    def make() -> Tensor:
        exponent = 2 * torch.div(torch.arange(dim, device=like.device), 2, rounding_mode="floor") / dim
        return (temperature**exponent).to(like.dtype)

    return _kept((dim, temperature, like.device, like.dtype), make)


def _interleave(angles: Tensor) -> Tensor:
    """(..., dim) angles -> sine at even and cosine at odd indices."""
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


class SinePosition(nn.Module):
    """Position embedding of the cells of feature maps: D numbers each, y before x.

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

    def forward(self, where: Cells, ratios: Float[Tensor, "B L 2"]) -> Float[Tensor, "B S D"]:
        """ratios: of each level's width and height, what is not padding."""
        valid = valid_cells(ratios, where).round().flip(-1)  # height, width
        count = where.centres.flip(-1) + 0.5
        # In a padded column there is no valid row, and the other way round.
        beside = (count <= valid).flip(-1)
        coordinate = torch.minimum(count, valid) * beside / (valid * beside + 1e-6) * (2 * math.pi)
        temperatures = self.temperature_h, self.temperature_w
        frequencies = torch.stack([_frequencies(self.axis_dim, t, coordinate) for t in temperatures])
        return _interleave(coordinate[..., None] / frequencies).flatten(-2)


def box_position(boxes_cxcywh: Float[Tensor, "*shape 4"], dim: int) -> Float[Tensor, "*shape {2*dim}"]:
    """Sine embedding of boxes: (..., 4) in 0..1 -> (..., 2 * dim), order y, x, w, h, temperature 10000."""
    angles = boxes_cxcywh * (2 * math.pi)
    angles = angles[..., None] / _frequencies(dim // 2, 10000.0, boxes_cxcywh)
    x, y, w, h = _interleave(angles).unbind(-2)
    return torch.cat((y, x, w, h), dim=-1)
