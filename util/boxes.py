"""Box formats and overlaps. Every function says the format of its boxes in its name or docstring.

`cxcywh`: centre x, centre y, width, height.  `xyxy`: left, top, right, bottom.
"""

import torch
from jaxtyping import Float
from torch import Tensor

GIOU_EPS = 1e-6


def box_cxcywh_to_xyxy(boxes_cxcywh: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    """(..., 4) cxcywh -> (..., 4) xyxy, same unit."""
    cx, cy, w, h = boxes_cxcywh.unbind(-1)
    return torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), dim=-1)


def box_xyxy_to_cxcywh(boxes_xyxy: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
    """(..., 4) xyxy -> (..., 4) cxcywh, same unit."""
    x0, y0, x1, y1 = boxes_xyxy.unbind(-1)
    return torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=-1)


def generalized_iou(
    a_xyxy: Float[Tensor, "*#shape 4"], b_xyxy: Float[Tensor, "*#shape 4"]
) -> Float[Tensor, "*#shape"]:
    """Generalized IoU (Rezatofighi et al., 2019) of boxes that broadcast: (..., 4), (..., 4) -> (...).

    Paired for equal shapes; pairwise for `a[:, None], b[None]`. Values in -1..1. Differentiable.
    """
    inner_min = torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    inner_max = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    outer_min = torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    outer_max = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    intersection = (inner_max - inner_min).clamp(min=0).prod(-1)
    hull = (outer_max - outer_min).clamp(min=0).prod(-1)
    area_a = (a_xyxy[..., 2:] - a_xyxy[..., :2]).prod(-1)
    area_b = (b_xyxy[..., 2:] - b_xyxy[..., :2]).prod(-1)
    union = area_a + area_b - intersection
    # The release's guard against empty boxes. It moves the loss of small boxes by some 1e-5.
    return intersection / (union + GIOU_EPS) - (hull - union) / (hull + GIOU_EPS)
