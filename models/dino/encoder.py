"""The deformable encoder: every token attends to points of all levels around its own position."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.dino.feed_forward import FeedForward
from models.dino.ops import MSDeformAttn
from models.dino.position import SinePosition
from models.dino.pyramid import Pyramid, cells, flatten_levels, token_mask, valid_cells, valid_ratios
from models.dino.recompute import recomputed
from models.dino.sixteen_bit import autocast_type, in_sixteen_bit


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward, each followed by its norm (Deformable DETR)."""

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
        self.self_attn = MSDeformAttn(dim, levels, heads, points)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim, dropout, recompute_ffn)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, "B S D"], pyramid: Pyramid, reference_points: Float[Tensor, "B S L 2"]
    ) -> Float[Tensor, "B S D"]:
        """tokens (B, S, D), reference_points (B, S, L, 2) -> (B, S, D)."""
        attended = self.self_attn(
            tokens + pyramid.positions, reference_points, tokens, pyramid.shapes, pyramid.mask
        )
        return self.norm2(self.ffn(tokens + self.dropout(attended), self.norm1))


class Encoder(nn.Module):
    """Feature levels -> memory: position and level embeddings, then `num_layers` encoder layers.

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
        position: SinePosition,
        recompute: bool = False,
    ):
        super().__init__()
        self.recompute = recompute
        self.position = position
        self.level_embed = nn.Parameter(torch.randn(levels, dim))
        self.layers = nn.ModuleList(
            EncoderLayer(dim, levels, heads, points, ffn_dim, dropout, recompute_ffn=not recompute)
            for _ in range(num_layers)
        )

    def forward(self, levels: list[Float[Tensor, "B D _ _"]], mask: Bool[Tensor, "B H W"]) -> Pyramid:
        """[(B, D, h_l, w_l), ...] and the images' padding mask (B, H, W) -> the encoded pyramid."""
        pyramid = self.embed(levels, mask)
        points = reference_points(pyramid)
        # As layers give them: they would copy them more than once, and compile anew for this layout.
        tokens, dtype = pyramid.tokens.contiguous(), autocast_type(pyramid.tokens.device)
        if dtype is not None:
            tokens = tokens.to(dtype)
            pyramid = replace(pyramid, positions=pyramid.positions.to(dtype))
        for layer in self.layers:
            arguments = (tokens.device, tokens, pyramid, points)
            tokens = recomputed(self.recompute, in_sixteen_bit, layer, *arguments)
        return replace(pyramid, tokens=tokens)

    def embed(self, levels: list[Float[Tensor, "B D _ _"]], mask: Bool[Tensor, "B H W"]) -> Pyramid:
        """Flattens the levels; adds position and level embeddings, padding mask, shapes and valid ratios."""
        shapes = tuple((x.shape[-2], x.shape[-1]) for x in levels)
        # Positions and valid ratios stay in the parameters' precision under autocast.
        where = cells(shapes, mask.device, self.level_embed.dtype)
        padding = token_mask(mask, shapes)
        ratios = valid_ratios(padding, where)
        embed = torch.cat(
            [e.expand(h * w, -1) for e, (h, w) in zip(self.level_embed.unbind(), shapes, strict=True)]
        )
        positions = self.position(where, ratios) + embed
        return Pyramid(flatten_levels(levels), positions, padding, shapes, ratios)


def reference_points(pyramid: Pyramid) -> Float[Tensor, "B S L 2"]:
    """Each token's own position on every level: (B, S, L, 2) x, y in 0..1 of the padded levels."""
    ratios = pyramid.valid_ratios
    where = cells(pyramid.shapes, ratios.device, ratios.dtype)
    return (where.centres / valid_cells(ratios, where))[:, :, None] * ratios[:, None]
