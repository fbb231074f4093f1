"""The losses of one prediction set. All return sums; the criterion divides by its num_boxes."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from util.boxes import box_cxcywh_to_xyxy, generalized_iou


def focal_loss_sum(
    logits: Float[Tensor, "*shape"], labels_one_hot: Float[Tensor, "*shape"], alpha: float = 0.25
) -> Float[Tensor, ""]:
    """Sigmoid focal loss (Lin et al. 2017) with gamma 2, summed over all entries. Shapes equal."""
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels_one_hot, reduction="none")
    missing = torch.where(labels_one_hot > 0, 1 - probability, probability)
    balance = torch.where(labels_one_hot > 0, alpha, 1 - alpha)
    return (balance * missing.square() * cross_entropy).sum()


def l1_loss_sum(boxes_cxcywh: Float[Tensor, "K 4"], wanted_cxcywh: Float[Tensor, "K 4"]) -> Float[Tensor, ""]:
    """Sum of absolute differences of (K, 4) boxes."""
    return (boxes_cxcywh - wanted_cxcywh).abs().sum()


def giou_loss_sum(
    boxes_cxcywh: Float[Tensor, "K 4"], wanted_cxcywh: Float[Tensor, "K 4"]
) -> Float[Tensor, ""]:
    """Sum of 1 - GIoU of paired (K, 4) boxes."""
    overlap = generalized_iou(box_cxcywh_to_xyxy(boxes_cxcywh), box_cxcywh_to_xyxy(wanted_cxcywh))
    return (1 - overlap).sum()
