"""Multi-scale deformable attention as a module, with Deformable DETR's parameter names and initialisation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .functional import ms_deform_attn_fused
from .linear import Linear


class MSDeformAttn(nn.Module):
    """Attention of every query to a few learned points of every level (Deformable DETR, section 4.1).

    Args:
        dim: width D of queries and memory.
        levels: number of feature levels L.
        heads: number of heads H; must divide `dim`.
        points: sampling points P per head and level.

    Raises:
        ValueError: `dim` is not divisible by `heads`.
    """

    def __init__(self, dim: int = 256, levels: int = 4, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"MSDeformAttn: dim {dim} is not divisible by heads {heads}")
        self.dim, self.levels, self.heads, self.points = dim, levels, heads, points
        self.sampling_offsets = Linear(dim, heads * levels * points * 2)
        self.attention_weights = Linear(dim, heads * levels * points)
        self.value_proj = Linear(dim, dim)
        self.output_proj = Linear(dim, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Head h starts out looking in direction 2*pi*h/H, point p at p + 1 pixels, with equal attention."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None, :] * steps[None, None, :, None]
        self.sampling_offsets.weight.zero_()
        self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        self.attention_weights.weight.zero_()
        self.attention_weights.bias.zero_()
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            projection.bias.zero_()

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, D).
            reference_points: (B, Q, L, 2) points (x, y) or (B, Q, L, 4) boxes cxcywh, in 0..1; float32 or
                float64.
            memory: (B, S, D), the levels flattened row by row and concatenated.
            shapes: (height, width) of each level, as Python ints.
            padding_mask: (B, S), True where the memory is padding and counts as zero (after the projection).

        Returns:
            (B, Q, D).
        """
        batch, queries, _ = query.shape
        value = self.value_proj(memory).view(batch, -1, self.heads, self.dim // self.heads)
        offsets = self.sampling_offsets(query).view(batch, queries, self.heads, self.levels, self.points, 2)
        logits = self.attention_weights(query).view(batch, queries, self.heads, self.levels * self.points)
        sampled = ms_deform_attn_fused(value, shapes, offsets, logits, reference_points, padding_mask)
        return self.output_proj(sampled)
