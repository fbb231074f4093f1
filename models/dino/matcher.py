"""Hungarian matching of queries and ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.dino.layers import at_least_float32
from models.dino.output import LayerOutput
from util.boxes import box_cxcywh_to_xyxy, generalized_iou
from util.structures import Targets

# Cost in place of NaN and infinity, which the solver refuses.
NOT_FINITE = 1e9


@dataclass(frozen=True)
class Matches:
    """K pairs of query and ground truth.

    image, query: (K,) int64, which query of which image. target: (K,) int64, which box, counted
    over all images of the batch in order.
    """

    image: Int64[Tensor, " K"]
    query: Int64[Tensor, " K"]
    target: Int64[Tensor, " K"]

    def __len__(self) -> int:
        return int(self.image.shape[0])


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
    def __call__(
        self, outputs: Sequence[LayerOutput], targets: Targets, one_class: Sequence[bool]
    ) -> list[Matches]:
        """Matches every output with the same targets; `one_class` says whose class is only 'object'.

        All costs are computed first and go to the CPU in one transfer.
        """
        per_image = list(
            zip(targets.labels.split(targets.counts), targets.boxes_cxcywh.split(targets.counts), strict=True)
        )
        costs = [
            self.cost(output, image, labels, boxes, agnostic)
            for output, agnostic in zip(outputs, one_class, strict=True)
            for image, (labels, boxes) in enumerate(per_image)
        ]
        shapes = [tuple(c.shape) for c in costs]
        # Diverged predictions are matched anyhow: the loss is not finite either, and is reported.
        flat = torch.cat([c.flatten() for c in costs]).nan_to_num(NOT_FINITE, NOT_FINITE, -NOT_FINITE)
        tables = np.split(flat.cpu().numpy(), np.cumsum([h * w for h, w in shapes])[:-1])
        pairs = [linear_sum_assignment(t.reshape(s)) for t, s in zip(tables, shapes, strict=True)]
        device = outputs[0].logits.device
        return [
            _collect(pairs[k * len(targets) : (k + 1) * len(targets)], targets.counts, device)
            for k in range(len(outputs))
        ]

    def cost(
        self, output: LayerOutput, image: int, labels: Tensor, boxes_cxcywh: Tensor, one_class: bool
    ) -> Tensor:
        """(Q, N) cost of every query with every box of one image, in float32 at least.

        labels (N,) and boxes_cxcywh (N, 4) of the image; one_class: every label means 'object'.
        """
        if one_class:
            labels = torch.zeros_like(labels)
        logits = at_least_float32(output.logits[image][:, labels])
        boxes = at_least_float32(output.boxes_cxcywh[image])
        target_boxes = boxes_cxcywh.to(boxes.dtype)
        probability = logits.sigmoid()
        absent = (1 - self.alpha) * probability**2 * -(1 - probability + 1e-8).log()
        present = self.alpha * (1 - probability) ** 2 * -(probability + 1e-8).log()
        distance = (boxes[:, None] - target_boxes[None]).abs().sum(-1)
        overlap = generalized_iou(box_cxcywh_to_xyxy(boxes)[:, None], box_cxcywh_to_xyxy(target_boxes)[None])
        return (
            self.class_weight * (present - absent)
            + self.box_weight * distance
            - self.giou_weight * overlap
        )  # fmt: skip


def _collect(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], counts: Sequence[int], device: torch.device
) -> Matches:
    """[(queries, boxes) of each image, ...] -> one set of matches with batch-wide box numbers."""
    first = np.cumsum([0, *counts])
    rows = [np.stack((np.full(len(query), i), query, box + first[i])) for i, (query, box) in enumerate(pairs)]
    table = torch.from_numpy(np.concatenate(rows, axis=1)).to(device)
    return Matches(*table.unbind(0))
