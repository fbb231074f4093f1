"""Two-stage query selection: the encoder's best tokens become the decoder's first boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.dino.layers import box_head
from models.dino.output import LayerOutput
from models.dino.pyramid import Pyramid, cell_centres, to_cells

# Tokens scored at a time; bounds the (tokens, classes) table that ranking needs.
CHUNK = 8192


@dataclass(frozen=True)
class Selection:
    """queries (B, Q, D), references (B, Q, 4) detached, encoder: predictions at the chosen tokens."""

    queries: Tensor
    references: Tensor
    encoder: LayerOutput


class QuerySelection(nn.Module):
    """Mixed query selection (DINO section 3.4): boxes from the encoder, content learnt by rank.

    Every token proposes the box of its own cell; its best class score ranks it. Class and box head
    are the encoder's own.
    """

    def __init__(self, dim: int, num_queries: int, classifier: nn.Module):
        super().__init__()
        self.num_queries = num_queries
        self.projection = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classifier = classifier
        self.box_head = box_head(dim)
        self.content = nn.Embedding(num_queries, dim)
        nn.init.normal_(self.content.weight)

    def forward(self, memory: Pyramid) -> Selection:
        """Encoded pyramid -> the queries to decode. With fewer tokens than queries, all tokens are taken."""
        anchors, usable = proposal_anchors(memory)
        tokens = memory.tokens * usable[..., None]
        count = min(self.num_queries, tokens.shape[1])
        with torch.no_grad():
            chosen = self._scores(tokens).topk(count, dim=1).indices
        pick = chosen[..., None]
        # Only the chosen tokens are projected again with gradients: ranking needs none.
        hidden = self.norm(self.projection(tokens.gather(1, pick.expand(-1, -1, tokens.shape[-1]))))
        anchor = anchors.gather(1, pick.expand(-1, -1, 4))
        boxes = torch.sigmoid(self.box_head(hidden).to(anchor.dtype) + anchor)
        encoder = LayerOutput(self.classifier(hidden), boxes, hidden)
        queries = self.content.weight[None, :count].expand(len(boxes), -1, -1)
        return Selection(queries, boxes.detach(), encoder)

    def _scores(self, tokens: Tensor) -> Tensor:
        """(B, S, D) -> (B, S) best class score of every token."""
        chunks = tokens.split(max(1, CHUNK // len(tokens)), dim=1)
        return torch.cat([self.classifier.best(self.norm(self.projection(c))) for c in chunks], dim=1)


def proposal_anchors(memory: Pyramid) -> tuple[Tensor, Tensor]:
    """The box each token proposes, before the sigmoid, and which tokens may propose.

    A box is centred on its cell, 0.05 * 2^level wide and high in the unpadded image. Padded tokens and
    those whose box has a coordinate outside 0.01..0.99 stay in the ranking, as in the release, with their
    memory zeroed and an infinite anchor, so that a chosen one is the box (1, 1, 1, 1).

    Returns (B, S, 4) and (B, S) bool.
    """
    ratios = memory.valid_ratios
    boxes = []
    for level, (centres, size) in enumerate(
        zip(cell_centres(memory.shapes, ratios.device, ratios.dtype), memory.shapes, strict=True)
    ):
        # Counts of valid cells in this level, from the ratios that the mask gave.
        places = centres[None] / to_cells(ratios[:, level], size).round()
        boxes.append(torch.cat((places, torch.full_like(places, 0.05 * 2.0**level)), dim=-1))
    proposals = torch.cat(boxes, dim=1)
    usable = ((proposals > 0.01) & (proposals < 0.99)).all(-1) & ~memory.mask
    anchors = torch.log(proposals / (1 - proposals))
    return anchors.masked_fill(~usable[..., None], torch.inf), usable
