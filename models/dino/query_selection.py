"""Two-stage query selection: the encoder's top-scoring tokens become the decoder's first reference boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from models.dino.heads import LateClassifier, class_logits
from models.dino.layers import box_head
from models.dino.ops.linear import Linear
from models.dino.output import LayerOutput, QueryLogits
from models.dino.pyramid import Pyramid, cells, valid_cells

# Tokens scored at a time: bounds the memory of the (tokens, classes) logits.
CHUNK = 8192


@dataclass(frozen=True)
class Selection:
    """queries (B, Q, D), reference_boxes (B, Q, 4) detached, encoder: predictions at the selected tokens.

    proposals: (B, Q) which token each query comes from, best first.
    """

    queries: Float[Tensor, "B Q D"]
    reference_boxes: Float[Tensor, "B Q 4"]
    encoder: LayerOutput
    proposals: Int64[Tensor, "B Q"]


class QuerySelection(nn.Module):
    """Mixed query selection (DINO section 3.4): boxes from the encoder, one learned content query per rank.

    Every token proposes a box around its own cell and is ranked by its highest class logit. The encoder has a
    classifier and a box head of its own.
    """

    def __init__(self, dim: int, num_queries: int, classifier: nn.Module):
        super().__init__()
        self.num_queries = num_queries
        self.projection = Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classifier = classifier
        self.box_head = box_head(dim)
        self.content = nn.Embedding(num_queries, dim)
        nn.init.normal_(self.content.weight)

    def forward(self, memory: Pyramid, proposals: Int64[Tensor, "B Q"] | None = None) -> Selection:
        """Encoded pyramid -> the decoder's queries; all tokens where there are fewer than `num_queries`.

        proposals: take these tokens instead of the best, to follow what another runtime chose.
        """
        anchors, valid = proposal_anchors(memory)
        tokens = memory.tokens * valid[..., None]
        if proposals is None:
            count = min(self.num_queries, tokens.shape[1])
            with torch.no_grad():
                proposals = self._scores(tokens).topk(count, dim=1).indices
        topk = proposals[..., None]
        # Ranking needs no gradient: only the selected tokens are projected again with one.
        hidden = self.norm(self.projection(tokens.gather(1, topk.expand(-1, -1, tokens.shape[-1]))))
        anchor = anchors.gather(1, topk.expand(-1, -1, 4))
        boxes = torch.sigmoid(self.box_head(hidden).to(anchor.dtype) + anchor)
        if self.training:
            classes = class_logits(self.classifier, hidden, training=True)
        else:  # nothing reads them
            classes = QueryLogits(hidden, LateClassifier(self.classifier))
        encoder = LayerOutput(classes, boxes, hidden)
        queries = self.content.weight[None, : proposals.shape[1]].expand(boxes.shape[0], -1, -1)
        return Selection(queries, boxes.detach(), encoder, proposals)

    @torch.no_grad()
    def ranking(self, memory: Pyramid) -> Float[Tensor, "B S"]:
        """The scores, before the sigmoid, by which `forward` ranks the tokens."""
        return self._scores(memory.tokens * proposal_anchors(memory)[1][..., None])

    def _scores(self, tokens: Float[Tensor, "B S D"]) -> Float[Tensor, "B S"]:
        """(B, S, D) -> (B, S), the highest class logit of every token."""
        batch, count = tokens.shape[:2]
        # While it is exported the graph does not know its sizes, so it cannot have a number of chunks either.
        known = isinstance(batch, int) and isinstance(count, int)
        chunks = tokens.split(max(1, CHUNK // batch), dim=1) if known else (tokens,)
        best = self.classifier.ranking()
        return torch.cat([best(self.norm(self.projection(c))) for c in chunks], dim=1)


def proposal_anchors(memory: Pyramid) -> tuple[Float[Tensor, "B S 4"], Bool[Tensor, "B S"]]:
    """Each token's proposal box before the sigmoid, (B, S, 4), and which proposals are valid, (B, S) bool.

    A box is centred on its cell; its width and height are 0.05 * 2^level of the unpadded image. Padded tokens
    and those whose box has a coordinate outside 0.01..0.99 are invalid. As in the release they stay in the
    ranking, with zeroed memory and an infinite anchor: a selected one is the box (1, 1, 1, 1).
    """
    ratios = memory.valid_ratios
    where = cells(memory.shapes, ratios.device, ratios.dtype)
    # The numbers of valid cells are recovered from the valid ratios.
    points = where.centres / valid_cells(ratios, where).round()
    proposals = torch.cat((points, (0.05 * where.scale).expand_as(points)), dim=-1)
    valid = ((proposals > 0.01) & (proposals < 0.99)).all(-1) & ~memory.mask
    anchors = torch.log(proposals / (1 - proposals))
    return anchors.masked_fill(~valid[..., None], torch.inf), valid
