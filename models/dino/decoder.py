"""The deformable decoder: queries attend to each other, then to the memory around their reference boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.dino.layers import MLP, FeedForward, inverse_sigmoid, without_autocast
from models.dino.ops import MSDeformAttn
from models.dino.position import box_position
from models.dino.pyramid import Pyramid


@dataclass(frozen=True)
class DecoderStates:
    """Outputs of L decoder layers.

    hidden:          (L, B, Q, D) normalised queries.
    reference_boxes: (L, B, Q, 4) cxcywh in 0..1, the layers' input boxes. Not detached: a layer's box loss
                     also trains the refinement of the layer before (look forward twice, DINO section 3.5).
    """

    hidden: Float[Tensor, "L B Q D"]
    reference_boxes: Float[Tensor, "L B Q 4"]


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward; each followed by its norm."""

    def __init__(self, dim: int, levels: int, heads: int, points: int, ffn_dim: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = MSDeformAttn(dim, levels, heads, points)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        position: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q L 4"],
        memory: Pyramid,
        mask: Bool[Tensor, "Q Q"] | None,
    ) -> Float[Tensor, "B Q D"]:
        """queries and position (B, Q, D), reference_boxes (B, Q, L, 4), mask (Q, Q) True = may not attend.

        Returns the queries, (B, Q, D).
        """
        attended = self._attend(queries + position, queries, mask)
        queries = self.norm2(queries + self.dropout(attended))
        sampled = self.cross_attn(
            queries + position, reference_boxes, memory.tokens, memory.shapes, memory.mask
        )
        queries = self.norm1(queries + self.dropout(sampled))
        return self.norm3(queries + self.ffn(queries))

    def _attend(self, with_pos: Tensor, queries: Tensor, mask: Tensor | None) -> Tensor:
        if with_pos.device.type != "cpu":
            return self.self_attn(with_pos, with_pos, queries, attn_mask=mask, need_weights=False)[0]
        # On a CPU PyTorch's fused attention is slower in 16 bit than in 32, its backward pass several times.
        dtype = self.norm2.weight.dtype
        with_pos, queries = with_pos.to(dtype), queries.to(dtype)
        with without_autocast(with_pos.device):
            return self.self_attn(with_pos, with_pos, queries, attn_mask=mask, need_weights=False)[0]


class Decoder(nn.Module):
    """`num_layers` decoder layers with iterative box refinement."""

    def __init__(
        self, dim: int, num_layers: int, levels: int, heads: int, points: int, ffn_dim: int, dropout: float
    ):
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            DecoderLayer(dim, levels, heads, points, ffn_dim, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.query_position = MLP(2 * dim, dim, dim, depth=2)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q 4"],
        memory: Pyramid,
        box_head: nn.Module,
        mask: Bool[Tensor, "Q Q"] | None,
        every_layer: bool = True,
    ) -> DecoderStates:
        """queries (B, Q, D), reference_boxes (B, Q, 4) in 0..1, mask (Q, Q) -> the outputs of the layers.

        every_layer: False gives those of the last one alone.
        """
        hidden, references = [], []
        for i, layer in enumerate(self.layers):
            detached = reference_boxes.detach()
            scaled = detached[:, :, None] * torch.cat((memory.valid_ratios,) * 2, dim=-1)[:, None]
            position = self.query_position(box_position(scaled[:, :, 0], self.dim))
            queries = layer(queries, position, scaled, memory, mask)
            hidden.append(queries)
            references.append(reference_boxes)
            if i + 1 < len(self.layers):
                delta = box_head(queries).to(detached.dtype)
                reference_boxes = torch.sigmoid(delta + inverse_sigmoid(detached))
        first = 0 if every_layer else -1
        return DecoderStates(self.norm(torch.stack(hidden[first:])), torch.stack(references[first:]))
