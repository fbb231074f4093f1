"""The feature pyramid as the transformer reads it: flattened tokens with positions, mask and level shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from models.dino.kept import Kept
from models.dino.layers import without_autocast

_kept = Kept()
Shapes = tuple[tuple[int, int], ...]


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
    shapes: Shapes
    valid_ratios: Float[Tensor, "B L 2"]


@dataclass(frozen=True)
class Cells:
    """The cells of all levels, in the order of the tokens: constants of the levels' shapes.

    centres: (S, 2) x, y in cells of the own level; the first is (0.5, 0.5).
    sizes:   (S, 2) width and height of the own level, in cells.
    level:   (S,) int64, number of the level.
    scale:   (S, 1) 2 to the power of the level.
    levels:  (L, 2) width and height of each level.
    edges:   (S, 2 L) 1 for the first row of a level, whose length is its width, and for its first column.
    """

    centres: Float[Tensor, "S 2"]
    sizes: Float[Tensor, "S 2"]
    level: Int64[Tensor, " S"]
    scale: Float[Tensor, "S 1"]
    levels: Float[Tensor, "L 2"]
    edges: Float[Tensor, "S _"]


def cells(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> Cells:
    """The cells of levels of these (height, width). Kept: a copy of numbers to a GPU would wait for it."""
    return _kept((shapes, device, dtype), lambda: _cells(shapes, device, dtype))


def _cells(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> Cells:
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    centres, sizes, level, edges = [], [], [], []
    for number, (height, width) in enumerate(shapes):
        y, x = torch.meshgrid(
            torch.arange(height, **options) + 0.5, torch.arange(width, **options) + 0.5, indexing="ij"
        )
        centre = torch.stack((x, y), dim=-1).flatten(0, 1)
        first = centre.flip(-1) < 1  # row, column
        centres.append(centre)
        sizes.append(torch.cat([torch.full((1, 1), side, **options) for side in (width, height)], dim=1))
        level.append(torch.full((height * width,), number, device=device))
        edges.append(F.pad(first.to(dtype), (2 * number, 2 * (len(shapes) - 1 - number))))
    levels, numbers = torch.cat(sizes), torch.cat(level)
    scales = torch.cat([torch.full((1, 1), 2.0**number, **options) for number in range(len(shapes))])
    return Cells(torch.cat(centres), levels[numbers], numbers, scales[numbers], levels, torch.cat(edges))


def token_mask(mask: Bool[Tensor, "B H W"], shapes: Shapes) -> Bool[Tensor, "B S"]:
    """The images' padding mask -> that of the tokens, by nearest neighbour."""
    height, width = mask.shape[1:]
    pixels = _kept(
        ("pixels", height, width, shapes, mask.device), lambda: _pixels(height, width, shapes, mask.device)
    )
    return mask.flatten(1)[:, pixels]


def _pixels(height: int, width: int, shapes: Shapes, device: torch.device) -> Int64[Tensor, " S"]:
    """Which pixel of an image, row by row, each token's mask is read from."""
    rows, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in (height, width))
    pixels = [_nearest(rows, h)[:, None] * width + _nearest(columns, w) for h, w in shapes]
    return torch.cat([level.flatten() for level in pixels])


def _nearest(numbers: Float[Tensor, " n"], count: int) -> Int64[Tensor, " _"]:
    """`count` of them, by nearest neighbour. In float32, as ONNX runtimes have it: sides are exact there."""
    return F.interpolate(numbers[None, None], size=count).flatten().long()


def valid_ratios(mask: Bool[Tensor, "B S"], where: Cells) -> Float[Tensor, "B L 2"]:
    """(B, S) mask of tokens -> (B, L, 2): fraction of each level's width and height that is not padding."""
    with without_autocast(mask.device):
        counts = (~mask).to(where.edges.dtype) @ where.edges
    return counts.unflatten(1, (-1, 2)) / where.levels


def flatten_levels(levels: Sequence[Shaped[Tensor, "B D _ _"]]) -> Shaped[Tensor, "B S D"]:
    """[(B, D, h, w), ...] -> (B, S, D)."""
    return torch.cat([x.flatten(2) for x in levels], dim=2).transpose(1, 2)


def valid_cells(ratios: Float[Tensor, "B L 2"], where: Cells) -> Float[Tensor, "B S 2"]:
    """Valid ratios of the levels -> width and height, in cells, of each token's level without its padding.

    They are whole numbers but for rounding.
    """
    return ratios[:, where.level] * where.sizes
