"""An image-level label goes to one query: that with the largest box, or its best score (Detic)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.dino.layers import at_least_float32
from models.dino.matcher import Matches
from util.boxes import box_cxcywh_to_xyxy
from util.structures import Targets

Rule = Literal["max_size", "max_score"]


@torch.no_grad()
def choose_queries(
    boxes_cxcywh: Float[Tensor, "S B Q 4"],
    targets: Targets,
    logits: Float[Tensor, "S N Q"] | None = None,
) -> tuple[Matches, Bool[Tensor, "S N"]]:
    """Of each set of predictions, the query that is taught each of the N labels (Zhou et al., ECCV 2022,
    section 3).

    logits: of each label at the queries of its image: the highest is chosen ('max-score'). Without them it
    is the box that covers most of the label's image ('max-size'); boxes count as clipped to the image, as
    there. The image is the target's box: the whole image, or a tile of a mosaic. Queries with their centre
    in another tile are no candidates, so none gets two labels.
    Returns the pairs, one for each label, and whether it is one: a tile may have no candidate.
    """
    image = targets.image_index
    boxes = at_least_float32(boxes_cxcywh[:, image])
    tiles = box_cxcywh_to_xyxy(targets.boxes_cxcywh.to(boxes.dtype))[:, None]
    low, high = tiles.split(2, -1)
    inside = ((boxes[..., :2] >= low) & (boxes[..., :2] < high)).all(-1)
    if logits is None:
        corners = box_cxcywh_to_xyxy(boxes)
        sides = torch.minimum(corners[..., 2:], high) - torch.maximum(corners[..., :2], low)
        value = sides.prod(-1)
    else:
        value = at_least_float32(logits)
    best, query = torch.where(inside, value, -torch.inf).max(-1)
    number = torch.arange(len(image), device=image.device)
    return Matches(image.expand_as(query), query, number.expand_as(query)), best > -torch.inf
