"""The deformable decoder: queries attend to each other, then to the memory around their reference boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.dino.feed_forward import FeedForward
from models.dino.layers import MLP, inverse_sigmoid
from models.dino.ops import MSDeformAttn
from models.dino.ops.linear import linear
from models.dino.position import box_position
from models.dino.pyramid import Pyramid
from models.dino.recompute import recomputed
from models.dino.sixteen_bit import autocast_type, in_sixteen_bit


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

    def __init__(
        self,
        dim: int,
        levels: int,
        heads: int,
        points: int,
        ffn_dim: int,
        dropout: float,
        recompute_ffn: bool = True,
    ):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = MSDeformAttn(dim, levels, heads, points)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim, dropout, recompute_ffn)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        position: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q L 4"],
        memory: Pyramid,
        bias: Float[Tensor, "Q Q"] | None,
    ) -> Float[Tensor, "B Q D"]:
        """queries and position (B, Q, D), reference_boxes (B, Q, L, 4), bias (Q, Q): see `attention_bias`.

        Returns the queries, (B, Q, D).
        """
        attended = self._attend(queries + position, queries, bias)
        queries = self.norm2(queries + self.dropout(attended))
        sampled = self.cross_attn(
            queries + position, reference_boxes, memory.tokens, memory.shapes, memory.mask
        )
        return self.norm3(self.ffn(queries + self.dropout(sampled), self.norm1))

    def _attend(self, with_pos: Tensor, queries: Tensor, bias: Tensor | None) -> Tensor:
        """What `self.self_attn` computes, without its transpositions, and with one product for the two
        projections of one input."""
        attention, dim, parts = self.self_attn, queries.shape[-1], [2 * queries.shape[-1], queries.shape[-1]]
        weights, biases = attention.in_proj_weight.split(parts), attention.in_proj_bias.split(parts)
        query, key = linear(with_pos, weights[0], biases[0]).split(dim, dim=-1)
        value = linear(queries, weights[1], biases[1])
        dtype, dropout = attention_type(queries), attention.dropout if self.training else 0.0
        query, key, value = (
            t.to(dtype).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        attended = attended.transpose(1, 2).flatten(2).to(queries.dtype)
        return linear(attended, attention.out_proj.weight, attention.out_proj.bias)


def attention_type(queries: Tensor) -> torch.dtype:
    """The type that attention among queries is computed in.

    On a CPU PyTorch's fused attention is slower in 16 bit than in 32, its backward pass several times.
    """
    return (
        torch.promote_types(queries.dtype, torch.float32) if queries.device.type == "cpu" else queries.dtype
    )


def attention_bias(mask: Bool[Tensor, "Q Q"], queries: Float[Tensor, "B Q D"]) -> Float[Tensor, "Q Q"]:
    """(Q, Q) True = may not attend -> 0, or minus infinity there: what attention adds to its logits."""
    count = mask.shape[-1]
    # Rows begin at multiples of 16 bytes, or a GPU's attention would copy them in every layer.
    bias = queries.new_zeros((count, -(-count // 8) * 8), dtype=attention_type(queries))[:, :count]
    return bias.masked_fill_(mask, -torch.inf)


class Decoder(nn.Module):
    """`num_layers` decoder layers with iterative box refinement.

    recompute: backward computes each layer again, and only its input is kept.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        levels: int,
        heads: int,
        points: int,
        ffn_dim: int,
        dropout: float,
        recompute: bool = False,
    ):
        super().__init__()
        self.recompute = recompute
        self.dim = dim
        self.layers = nn.ModuleList(
            DecoderLayer(dim, levels, heads, points, ffn_dim, dropout, recompute_ffn=not recompute)
            for _ in range(num_layers)
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
        device, dtype = queries.device, autocast_type(queries.device)
        if dtype is not None:
            queries, memory = queries.to(dtype), replace(memory, tokens=memory.tokens.to(dtype))
        bias = None if mask is None else attention_bias(mask, queries)
        ratios = torch.cat((memory.valid_ratios,) * 2, dim=-1)[:, None]
        for i, layer in enumerate(self.layers):
            detached = reference_boxes.detach()
            scaled = detached[:, :, None] * ratios
            position = self.query_position(box_position(scaled[:, :, 0], self.dim))
            arguments = (device, queries, position, scaled, memory, bias)
            queries = recomputed(self.recompute, in_sixteen_bit, layer, *arguments)
            hidden.append(queries)
            references.append(reference_boxes)
            if i + 1 < len(self.layers):
                delta = box_head(queries).to(detached.dtype)
                reference_boxes = torch.sigmoid(delta + inverse_sigmoid(detached))
        first = 0 if every_layer else -1
        return DecoderStates(self.norm(torch.stack(hidden[first:])), torch.stack(references[first:]))
