"""The feature pyramid as the transformer reads it: flattened tokens with positions, mask and level shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Pyramid:
    """Tokens of all levels, flattened and concatenated: finest level first, each level row by row.

    tokens:       (B, S, D).
    positions:    (B, S, D) position plus level embedding of each token.
    mask:         (B, S) bool, True where padded.
    shapes:       [(height, width), ...] of the levels, Python ints.
    valid_ratios: (B, L, 2) fraction of each level's (width, height) that is not padding.
    """

    tokens: Float[Tensor, "B S D"]
    positions: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B S"]
    shapes: tuple[tuple[int, int], ...]
    valid_ratios: Float[Tensor, "B L 2"]


def level_masks(
    mask: Bool[Tensor, "B H W"], levels: Sequence[Float[Tensor, "B _ _ _"]]
) -> list[Bool[Tensor, "B _ _"]]:
    """(B, H, W) padding mask -> one (B, h_l, w_l) mask per level, by nearest neighbour."""
    as_float = mask[:, None].float()
    return [F.interpolate(as_float, size=x.shape[-2:]).squeeze(1).bool() for x in levels]


def flatten_levels(levels: Sequence[Shaped[Tensor, "B D _ _"]]) -> Shaped[Tensor, "B S D"]:
    """[(B, D, h, w), ...] -> (B, S, D)."""
    return torch.cat([x.flatten(2) for x in levels], dim=2).transpose(1, 2)


def valid_ratio(mask: Bool[Tensor, "B h w"], dtype: torch.dtype) -> Float[Tensor, "B 2"]:
    """(B, h, w) -> (B, 2): fraction of the width and of the height that is not padding."""
    height, width = mask.shape[1:]
    valid = (~mask).to(dtype)
    return torch.stack((valid[:, 0, :].sum(1) / width, valid[:, :, 0].sum(1) / height), dim=-1)


def to_cells(fractions: Float[Tensor, "B 2"], shape: tuple[int, int]) -> Float[Tensor, "B 1 2"]:
    """(B, 2) fractions x, y of a level's `shape` (height, width) -> (B, 1, 2) x, y in cells.

    The shape stays Python ints: copying it into a tensor would synchronise with the GPU.
    """
    x, y = fractions[:, None].unbind(-1)
    return torch.stack((x * shape[1], y * shape[0]), dim=-1)


def cell_centres(
    shapes: Sequence[tuple[int, int]], device: torch.device, dtype: torch.dtype
) -> list[Float[Tensor, "_ 2"]]:
    """Centres of each level's cells, in cells: [(h * w, 2) x, y, ...]; the first is (0.5, 0.5)."""
    centres = []
    for height, width in shapes:
        y, x = torch.meshgrid(
            torch.arange(height, device=device, dtype=dtype) + 0.5,
            torch.arange(width, device=device, dtype=dtype) + 0.5,
            indexing="ij",
        )
        centres.append(torch.stack((x, y), dim=-1).flatten(0, 1))
    return centres
