"""Hungarian matching of queries and ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.dino.layers import at_least_float32
from models.dino.output import LayerStack, logits_of
from util.boxes import box_cxcywh_to_xyxy, generalized_iou
from util.structures import Targets

# Cost in place of NaN and infinity, which the solver refuses.
NOT_FINITE = 1e9


@dataclass(frozen=True)
class Matches:
    """K pairs of query and ground truth, of one set of predictions or of several, K of each.

    image, query: (..., K) int64, which query of which image. target: (..., K) int64, which box, counted
    over all images of the batch in order.
    """

    image: Int64[Tensor, "*sets K"]
    query: Int64[Tensor, "*sets K"]
    target: Int64[Tensor, "*sets K"]

    def __len__(self) -> int:
        """K."""
        return int(self.image.shape[-1])

    def __getitem__(self, index: int) -> Matches:
        """Those of one set."""
        return Matches(self.image[index], self.query[index], self.target[index])

    def expand(self, sets: int) -> Matches:
        """The pairs of one set as those of `sets` alike."""
        return Matches(*(t.expand(sets, -1) for t in (self.image, self.query, self.target)))


class HungarianMatcher:
    """One-to-one assignment of least total cost (DETR, with the focal class cost of Deformable DETR).

    Weights: official `set_cost_class`, `set_cost_bbox`, `set_cost_giou`; alpha and gamma of the focal
    loss are 0.25 and 2.
    """

    def __init__(self, class_weight: float, box_weight: float, giou_weight: float, alpha: float = 0.25):
        if not (class_weight or box_weight or giou_weight):
            raise ValueError("at least one matching cost must have a weight")
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.giou_weight = giou_weight
        self.alpha = alpha

    @torch.no_grad()
    def __call__(self, outputs: Sequence[LayerStack], targets: Targets, one_class: Sequence[bool]) -> Matches:
        """Matches every layer of all stacks with the same targets; `one_class` says which stack's class is
        only 'object'.

        All have as many queries. Their costs are computed together and go to the CPU in one transfer.
        Returns the pairs of each layer, (S, K).
        """
        # Diverged predictions are matched anyhow: the loss is not finite either, and is reported.
        cost = self.costs(outputs, targets, one_class).nan_to_num(NOT_FINITE, NOT_FINITE, -NOT_FINITE)
        tables = cost.cpu().numpy()
        first = np.cumsum([0, *targets.counts])
        rows = []
        for table in tables:
            of_images = []
            for image, (start, stop) in enumerate(pairwise(first.tolist())):
                box, query = linear_sum_assignment(table[start:stop])
                of_images.append(np.stack((np.full(len(box), image), query, box + start)))
            rows.append(np.concatenate(of_images, axis=1))
        pairs = torch.from_numpy(np.stack(rows, axis=1)).to(cost.device, non_blocking=True)
        return Matches(*pairs.unbind(0))

    def costs(
        self, outputs: Sequence[LayerStack], targets: Targets, one_class: Sequence[bool]
    ) -> Float[Tensor, "S N Q"]:
        """Cost of every box with every query of its image, for each layer; in float32 at least."""
        image, label = targets.image_index, targets.labels
        object_label = torch.zeros_like(label)
        labels = [object_label if agnostic else label for agnostic in one_class]
        logits = label_logits(outputs, targets, labels)
        boxes = at_least_float32(torch.cat([stack.boxes_cxcywh for stack in outputs])[:, image])
        target_boxes = targets.boxes_cxcywh.to(boxes.dtype)[:, None]
        probability = at_least_float32(logits).sigmoid()
        absent = (1 - self.alpha) * probability**2 * -(1 - probability + 1e-8).log()
        present = self.alpha * (1 - probability) ** 2 * -(probability + 1e-8).log()
        distance = (boxes - target_boxes).abs().sum(-1)
        overlap = generalized_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target_boxes))
        return (
            self.class_weight * (present - absent)
            + self.box_weight * distance
            - self.giou_weight * overlap
        )  # fmt: skip


def label_logits(
    outputs: Sequence[LayerStack], targets: Targets, labels: Sequence[Int64[Tensor, " N"]]
) -> Float[Tensor, "S N Q"]:
    """The logit of every box's class at the queries of its image, for each layer.

    labels: the boxes' classes in each stack.
    """
    image = targets.image_index
    box = torch.arange(len(image), device=image.device)
    # Indices around a slice put their axis first: (N, L, Q).
    parts = [
        logits_of(stack.classes, wanted)[:, image, :, box]
        for stack, wanted in zip(outputs, labels, strict=True)
    ]
    return torch.cat(parts, dim=1).transpose(0, 1)
