"""The criterion: one loss path for every group of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from models.dino.federated import FederatedClasses
from models.dino.losses import focal_loss_sum, giou_loss_sum, l1_loss_sum
from models.dino.matcher import HungarianMatcher, Matches
from models.dino.output import DenoisingLayout, DetectorOutput, LayerOutput
from util import distributed
from util.structures import Targets


@dataclass(frozen=True)
class Group:
    """One set of predictions and what it is to be.

    suffix:     of the loss names: '' last layer, '_0' earlier ones, '_interm' encoder, '_dn', '_dn_0'.
    layer:      the predictions.  last: whether they are the last decoder layer's.
    matches:    pairs of query and ground truth.
    labels:     (K,) class of each pair.  boxes_cxcywh: (K, 4) box of each pair.
    columns:    class columns that the loss looks at; None for all.
    num_boxes: what sums are divided by.
    """

    suffix: str
    layer: LayerOutput
    last: bool
    matches: Matches
    labels: Tensor
    boxes_cxcywh: Tensor
    columns: Tensor | None
    num_boxes: Tensor


class PredictionSetLoss(Protocol):
    """A further loss of a group: name without suffix -> normalised loss; empty where it has none."""

    def __call__(self, group: Group, targets: Targets, semantic) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Losses:
    """total: weighted sum, with gradient. named: every loss, unweighted, detached, by official name."""

    total: Tensor
    named: dict[str, Tensor]


class Criterion(nn.Module):
    """Set prediction losses of the last layer, earlier layers, encoder and denoising.

    weights: base name -> weight ('loss_ce', 'loss_bbox', 'loss_giou', ...), see `loss_weight`.
    masked: parts of names ('bbox', 'giou', 'loss_ce') whose weight is 0 on image-level batches.
    federated: draws the judged classes, or None for all.  encoder_one_class: the encoder only tells
    object from background (official `enc_cls_agn`).
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        weights: dict[str, float],
        interm_weight: float = 1.0,
        alpha: float = 0.25,
        federated: FederatedClasses | None = None,
        encoder_one_class: bool = False,
        masked: Sequence[str] = (),
        extra: Sequence[PredictionSetLoss] = (),
    ):
        super().__init__()
        self.matcher = matcher
        self.weights = dict(weights)
        self.interm_weight = interm_weight
        self.alpha = alpha
        self.federated = federated
        self.encoder_one_class = encoder_one_class
        self.masked = tuple(masked)
        self.extra = tuple(extra)

    def forward(self, output: DetectorOutput, targets: Targets, semantic=None) -> Losses:
        """output of the model in training, its targets, and what the teacher saw (None without one)."""
        image_level = targets.image_level
        named: dict[str, Tensor] = {}
        total = output.encoder.boxes_cxcywh.new_zeros(())
        for group in self.groups(output, targets):
            for name, loss in self.group_losses(group, targets, semantic).items():
                weight = self.loss_weight(name, group.suffix, image_level)
                total = total + weight * loss
                named[name + group.suffix] = loss.detach()
        return Losses(total, named)

    def loss_weight(self, name: str, suffix: str, image_level: bool) -> float:
        """Weight of one loss: its base weight, times the encoder's factor, 0 where image-level data masks it.

        Masks never touch the encoder's losses (release behaviour).
        """
        encoder = suffix == "_interm"
        if image_level and not encoder and any(part in name for part in self.masked):
            return 0.0
        return self.weights[name] * (self.interm_weight if encoder else 1.0)

    def groups(self, output: DetectorOutput, targets: Targets) -> list[Group]:
        """Every prediction set of the output with its matches."""
        labels, boxes = targets.labels, targets.boxes_cxcywh
        matched = (*output.layers, output.encoder)
        one_class = [False] * len(output.layers) + [self.encoder_one_class]
        matches = self.matcher(matched, targets, one_class)
        num_boxes = self.num_boxes(len(matches[len(output.layers) - 1]), boxes)
        last = len(output.layers) - 1

        def group(suffix: str, layer: LayerOutput, is_last: bool, pairs: Matches, share: Tensor) -> Group:
            wanted = labels[pairs.target]
            if suffix == "_interm" and self.encoder_one_class:
                wanted = torch.zeros_like(wanted)
            columns = self.federated(wanted) if self.federated is not None else None
            return Group(suffix, layer, is_last, pairs, wanted, boxes[pairs.target], columns, share)

        found = [
            group("" if i == last else f"_{i}", layer, i == last, matches[i], num_boxes)
            for i, layer in enumerate(output.layers)
        ]
        found.append(group("_interm", output.encoder, False, matches[-1], num_boxes))
        if output.layout is not None:
            pairs = denoising_matches(targets, output.layout)
            share = num_boxes * output.layout.groups
            found += [
                group("_dn" if i == last else f"_dn_{i}", layer, i == last, pairs, share)
                for i, layer in enumerate(output.denoising)
            ]
        return found

    def num_boxes(self, pairs: int, like: Tensor) -> Tensor:
        """Matched pairs of the last layer, mean over ranks, at least 1."""
        return distributed.all_reduce_mean(like.new_full((), float(pairs))).clamp(min=1)

    def group_losses(self, group: Group, targets: Targets, semantic) -> dict[str, Tensor]:
        """All losses of one group, normalised, by name without suffix."""
        logits = _at_least_float32(group.layer.logits)
        one_hot = torch.zeros_like(logits)
        one_hot[group.matches.image, group.matches.query, group.labels] = 1
        if group.columns is not None:
            logits, one_hot = logits[..., group.columns], one_hot[..., group.columns]
        boxes = _at_least_float32(group.layer.boxes_cxcywh)[group.matches.image, group.matches.query]
        wanted = group.boxes_cxcywh.to(boxes.dtype)
        losses = {
            "loss_ce": focal_loss_sum(logits, one_hot, self.alpha) / group.num_boxes,
            "loss_bbox": l1_loss_sum(boxes, wanted) / group.num_boxes,
            "loss_giou": giou_loss_sum(boxes, wanted) / group.num_boxes,
        }
        for loss in self.extra:
            losses.update(loss(group, targets, semantic))
        return losses


def denoising_matches(targets: Targets, layout: DenoisingLayout) -> Matches:
    """Which slot is which box: the positives of every group, in order.

    Box counts [2, 1], two groups of max_boxes 2: image 0 has boxes 0 1 in slots 0 1 and 4 5, image 1
    has box 2 in slots 0 and 4.
    """
    image, device = targets.image_index, targets.image_index.device
    target = torch.arange(len(image), device=device)
    block = torch.arange(layout.groups, device=device).repeat_interleave(len(image)) * 2 * layout.max_boxes
    repeat = layout.groups
    return Matches(image.repeat(repeat), targets.box_index.repeat(repeat) + block, target.repeat(repeat))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
