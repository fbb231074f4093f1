"""Contrastive denoising (DINO section 3.3): noised ground truth as extra queries, in training only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from models.dino.layers import inverse_sigmoid
from models.dino.output import DenoisingLayout
from util.boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh
from util.structures import Targets


@dataclass(frozen=True)
class DenoisingQueries:
    """Noised queries of a batch.

    queries (B, slots, D), reference_boxes (B, slots, 4), mask (slots + Q, slots + Q) True = may not attend.
    """

    queries: Float[Tensor, "B slots D"]
    reference_boxes: Float[Tensor, "B slots 4"]
    mask: Bool[Tensor, "total total"]
    layout: DenoisingLayout


class Denoising(nn.Module):
    """Noised copies of the ground-truth boxes and labels, positives near and negatives farther away.

    number: about how many positives an image gets, spread over max(1, number // largest box count)
    groups (official `dn_number`). label_noise: half of it is the share of labels redrawn over all
    classes (official `dn_label_noise_ratio`). box_noise: scale of the shift of the corners in half box
    sizes; negatives shift by 1..2 of it (official `dn_box_noise_scale`).
    label_embedding: labels (K,) -> content of the queries (K, D).
    image_level: whether the coarse boxes of image-level batches are noised too.
    """

    def __init__(
        self,
        number: int,
        label_noise: float,
        box_noise: float,
        num_classes: int,
        label_embedding: nn.Module,
        image_level: bool = True,
    ):
        super().__init__()
        self.number = number
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.num_classes = num_classes
        self.label_embedding = label_embedding
        self.image_level = image_level

    def forward(self, targets: Targets, num_queries: int) -> DenoisingQueries:
        """Targets of a batch -> its denoising queries, placed before `num_queries` matching queries.

        A batch without boxes gives zero slots whose graph still reaches every parameter, so that ranks
        with and without boxes reduce the same gradients.
        """
        if targets.image_level and not self.image_level:
            targets = targets.without_boxes()
        max_boxes = max(targets.counts)
        layout = DenoisingLayout(groups=max(1, self.number // max(max_boxes, 1)), max_boxes=max_boxes)
        image, slot = slots_of_copies(targets, layout)

        copies = 2 * layout.groups
        device, count = targets.labels.device, len(targets.labels)
        negative = torch.arange(copies, device=device).repeat_interleave(count) % 2 == 1
        labels = self._noised_labels(targets.labels.repeat(copies))
        boxes = self._noised_boxes(targets.boxes_cxcywh.repeat(copies, 1), negative)

        content = self.label_embedding(labels)
        queries = content.new_zeros((len(targets), layout.num_denoising_queries, content.shape[-1]))
        queries = queries.index_put((image, slot), content)
        # An unused slot is the box 0.5, 0.5, 0.5, 0.5; it stays in attention and in the class loss.
        reference_boxes = boxes.new_full((len(targets), layout.num_denoising_queries, 4), 0.5)
        reference_boxes[image, slot] = inverse_sigmoid(boxes).sigmoid()
        mask = attention_mask(layout, num_queries, device)
        return DenoisingQueries(queries, reference_boxes, mask, layout)

    def _noised_labels(self, labels: Int64[Tensor, " K"]) -> Int64[Tensor, " K"]:
        if self.label_noise <= 0:
            return labels
        redraw = torch.rand(labels.shape, device=labels.device) < self.label_noise * 0.5
        return torch.where(redraw, torch.randint_like(labels, self.num_classes), labels)

    def _noised_boxes(
        self, boxes_cxcywh: Float[Tensor, "K 4"], negative: Bool[Tensor, " K"]
    ) -> Float[Tensor, "K 4"]:
        if self.box_noise <= 0:
            return boxes_cxcywh
        half_size = boxes_cxcywh[:, 2:].repeat(1, 2) / 2
        sign = torch.randint(0, 2, boxes_cxcywh.shape, device=negative.device) * 2 - 1
        amount = torch.rand(boxes_cxcywh.shape, device=negative.device) + negative[:, None]
        corners = box_cxcywh_to_xyxy(boxes_cxcywh) + sign * amount * half_size * self.box_noise
        return box_xyxy_to_cxcywh(corners.clamp(0, 1))


def slots_of_copies(
    targets: Targets, layout: DenoisingLayout
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """Image and slot of every copy, copies in the order [all boxes] x (positive, negative) x groups.

    Box counts [2, 1], two groups: max_boxes 2, slots 0 1 | 2 3 | 4 5 | 6 7 (positives, negatives, positives,
    negatives). Image 0 fills them all, image 1 the even ones: the first copy of the three boxes goes to
    images 0 0 1, slots 0 1 0, the second to slots 2 3 2, and so on.
    """
    image, device = targets.image_index, targets.image_index.device
    copies = 2 * layout.groups
    block = torch.arange(copies, device=device).repeat_interleave(len(image)) * layout.max_boxes
    return image.repeat(copies), targets.box_index.repeat(copies) + block


def attention_mask(
    layout: DenoisingLayout, num_queries: int, device: torch.device
) -> Bool[Tensor, "total total"]:
    """(slots + Q, slots + Q) bool, True = may not attend.

    Matching queries see no denoising query, a denoising query sees its own group and the matching ones.
    """
    group = torch.arange(layout.num_denoising_queries, device=device) // max(2 * layout.max_boxes, 1)
    group = torch.cat((group, group.new_full((num_queries,), -1)))
    return (group[None, :] >= 0) & (group[None, :] != group[:, None])
