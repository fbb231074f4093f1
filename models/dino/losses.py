"""The box losses of a prediction set, as sums; criterion.py divides by `num_boxes` and applies weights."""

from jaxtyping import Float
from torch import Tensor

from util.boxes import box_cxcywh_to_xyxy, generalized_iou


def l1_loss_sum(
    boxes_cxcywh: Float[Tensor, "K 4"], target_boxes_cxcywh: Float[Tensor, "K 4"]
) -> Float[Tensor, ""]:
    """Sum of absolute differences."""
    return (boxes_cxcywh - target_boxes_cxcywh).abs().sum()


def giou_loss_sum(
    boxes_cxcywh: Float[Tensor, "K 4"], target_boxes_cxcywh: Float[Tensor, "K 4"]
) -> Float[Tensor, ""]:
    """Sum of 1 - GIoU of the pairs."""
    giou = generalized_iou(box_cxcywh_to_xyxy(boxes_cxcywh), box_cxcywh_to_xyxy(target_boxes_cxcywh))
    return (1 - giou).sum()
