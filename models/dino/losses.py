"""The box losses of pairs; criterion.py sums them, divides by `num_boxes` and applies weights."""

from jaxtyping import Float
from torch import Tensor

from util.boxes import box_cxcywh_to_xyxy, generalized_iou


def l1_loss(
    boxes_cxcywh: Float[Tensor, "K 4"], target_boxes_cxcywh: Float[Tensor, "K 4"]
) -> Float[Tensor, " K"]:
    """Sum of the absolute differences of a pair."""
    return (boxes_cxcywh - target_boxes_cxcywh).abs().sum(-1)


def giou_loss(
    boxes_cxcywh: Float[Tensor, "K 4"], target_boxes_cxcywh: Float[Tensor, "K 4"]
) -> Float[Tensor, " K"]:
    """1 - GIoU of a pair."""
    return 1 - generalized_iou(box_cxcywh_to_xyxy(boxes_cxcywh), box_cxcywh_to_xyxy(target_boxes_cxcywh))
