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
    # Not slices and `prod`: their backward passes are several times the forward.
    (a_min, a_max), (b_min, b_max) = a_xyxy.split(2, -1), b_xyxy.split(2, -1)
    inner = torch.minimum(a_max, b_max) - torch.maximum(a_min, b_min)
    outer = torch.maximum(a_max, b_max) - torch.minimum(a_min, b_min)
    intersection, hull = _area(inner.clamp(min=0)), _area(outer.clamp(min=0))
    area_a, area_b = _area(a_max - a_min), _area(b_max - b_min)
    union = area_a + area_b - intersection
    # The release's guard against empty boxes. It moves the loss of small boxes by some 1e-5.
    return intersection / (union + GIOU_EPS) - (hull - union) / (hull + GIOU_EPS)


def _area(size: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape"]:
    width, height = size.unbind(-1)
    return width * height
