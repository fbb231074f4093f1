"""The deformable encoder: every token gathers from all levels around its own place."""

import torch
from torch import Tensor, nn

from models.dino.layers import FeedForward
from models.dino.ops import MSDeformAttn
from models.dino.position import SinePosition
from models.dino.pyramid import Pyramid, cell_centres, flatten_levels, level_masks, to_cells, valid_ratio


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward, norms after (Deformable DETR)."""

    def __init__(self, dim: int, levels: int, heads: int, points: int, ffn_dim: int, dropout: float):
        super().__init__()
        self.self_attn = MSDeformAttn(dim, levels, heads, points)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, pyramid: Pyramid, references: Tensor) -> Tensor:
        """tokens (B, S, D), references (B, S, L, 2) -> (B, S, D)."""
        attended = self.self_attn(
            tokens + pyramid.positions, references, tokens, pyramid.shapes, pyramid.mask
        )
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(tokens + self.ffn(tokens))


class Encoder(nn.Module):
    """Feature levels -> memory: position and level embeddings, then `num_layers` encoder layers."""

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
    ):
        super().__init__()
        self.position = position
        self.level_embed = nn.Parameter(torch.randn(levels, dim))
        self.layers = nn.ModuleList(
            EncoderLayer(dim, levels, heads, points, ffn_dim, dropout) for _ in range(num_layers)
        )

    def forward(self, levels: list[Tensor], mask: Tensor) -> Pyramid:
        """[(B, D, h_l, w_l), ...] and the images' padding mask (B, H, W) -> the encoded pyramid."""
        pyramid = self.embed(levels, mask)
        references = encoder_references(pyramid)
        tokens = pyramid.tokens
        for layer in self.layers:
            tokens = layer(tokens, pyramid, references)
        return Pyramid(tokens, pyramid.positions, pyramid.mask, pyramid.shapes, pyramid.valid_ratios)

    def embed(self, levels: list[Tensor], mask: Tensor) -> Pyramid:
        """Flattens the levels and adds what the layers need to know of each token."""
        # Positions and references stay in the parameters' precision under autocast.
        dtype = self.level_embed.dtype
        masks = level_masks(mask, levels)
        positions = [
            self.position(m, dtype) + e[None, :, None, None]
            for m, e in zip(masks, self.level_embed, strict=True)
        ]
        return Pyramid(
            tokens=flatten_levels(levels),
            positions=flatten_levels(positions),
            mask=torch.cat([m.flatten(1) for m in masks], dim=1),
            shapes=tuple((x.shape[-2], x.shape[-1]) for x in levels),
            valid_ratios=torch.stack([valid_ratio(m, dtype) for m in masks], dim=1),
        )


def encoder_references(pyramid: Pyramid) -> Tensor:
    """Each token's own place on every level: (B, S, L, 2) x, y in 0..1 of the padded levels."""
    ratios = pyramid.valid_ratios
    places = []
    for level, (centres, size) in enumerate(
        zip(cell_centres(pyramid.shapes, ratios.device, ratios.dtype), pyramid.shapes, strict=True)
    ):
        places.append(centres[None] / to_cells(ratios[:, level], size))
    return torch.cat(places, dim=1)[:, :, None] * ratios[:, None]
