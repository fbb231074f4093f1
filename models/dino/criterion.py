"""The criterion: one loss path for every set of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from models.dino.federated import FederatedClasses
from models.dino.layers import at_least_float32
from models.dino.losses import giou_loss_sum, l1_loss_sum
from models.dino.matcher import HungarianMatcher, Matches
from models.dino.output import DenoisingLayout, DetectorOutput, LayerOutput
from util import distributed
from util.structures import Losses, Targets


@dataclass(frozen=True)
class PredictionSet:
    """The predictions of one layer with their targets.

    kind:          'decoder' (the matching queries of a decoder layer), 'encoder' (its chosen proposals) or
                   'denoising' (the noised queries of a decoder layer).
    layer:         number of the decoder layer, from 0; 0 for the encoder.
    is_last:       whether it is the last decoder layer.
    outputs:       the predictions.
    matches:       K pairs of query and target.
    labels:        (K,) class of each pair's target.
    boxes_cxcywh:  (K, 4) box of each pair's target.
    class_indices: (M,) classes that the loss judges; None for all.
    num_boxes:     what sums are divided by.
    """

    kind: Literal["decoder", "encoder", "denoising"]
    layer: int
    is_last: bool
    outputs: LayerOutput
    matches: Matches
    labels: Int64[Tensor, " K"]
    boxes_cxcywh: Float[Tensor, "K 4"]
    class_indices: Int64[Tensor, " M"] | None
    num_boxes: Float[Tensor, ""]

    @property
    def suffix(self) -> str:
        """What the official release appends to loss names: '', '_0', '_interm', '_dn', '_dn_0', ..."""
        if self.kind == "encoder":
            return "_interm"
        return ("_dn" if self.kind == "denoising" else "") + ("" if self.is_last else f"_{self.layer}")


@runtime_checkable
class PredictionSetLoss(Protocol):
    """A further loss of each prediction set.

    weights: name without suffix -> weight of every loss that it returns.
    Called with the set, the batch's targets and what the teacher saw; returns name without suffix ->
    normalised loss, nothing for sets that it has no opinion on.
    """

    weights: Mapping[str, float]

    def __call__(self, predictions: PredictionSet, targets: Targets, semantic: Any) -> dict[str, Tensor]: ...


class Criterion(nn.Module):
    """Set prediction losses of the last layer, earlier layers, encoder and denoising.

    weights: 'loss_ce', 'loss_bbox', 'loss_giou' -> weight; `extra_losses` bring their own.
    interm_weight: factor on all losses of the encoder (official `interm_loss_coef`).
    ignored_on_image_level: parts of names ('bbox', 'giou', 'loss_ce') that weigh 0 on image-level batches.
    federated: draws the judged classes, or None for all.
    encoder_one_class: the encoder only tells object from background (official `enc_cls_agn`).
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        weights: Mapping[str, float],
        interm_weight: float = 1.0,
        alpha: float = 0.25,
        federated: FederatedClasses | None = None,
        encoder_one_class: bool = False,
        ignored_on_image_level: Sequence[str] = (),
        extra_losses: Sequence[PredictionSetLoss] = (),
    ):
        super().__init__()
        self.matcher = matcher
        self.extra_losses = tuple(extra_losses)
        self.weights = dict(weights)
        for loss in self.extra_losses:
            self.weights.update(loss.weights)
        self.interm_weight = interm_weight
        self.alpha = alpha
        self.federated = federated
        self.encoder_one_class = encoder_one_class
        self.ignored_on_image_level = tuple(ignored_on_image_level)

    def forward(self, output: DetectorOutput, targets: Targets, semantic: Any = None) -> Losses:
        """output of the model in training, its targets, and what the teacher saw (None without one)."""
        named: dict[str, Tensor] = {}
        total = output.encoder.boxes_cxcywh.new_zeros(())
        for predictions in self.prediction_sets(output, targets):
            for name, loss in self.set_losses(predictions, targets, semantic).items():
                weight = self.loss_weight(name, predictions.kind, targets.image_level)
                total = total + weight * loss
                named[name + predictions.suffix] = loss.detach()
        return Losses(total, named)

    def loss_weight(self, name: str, kind: str, image_level: bool) -> float:
        """Weight of one loss: its base weight, times the encoder's factor, 0 where image-level data masks it.

        Masks never touch the encoder's losses (release behaviour).
        """
        encoder = kind == "encoder"
        if image_level and not encoder and any(part in name for part in self.ignored_on_image_level):
            return 0.0
        return self.weights[name] * (self.interm_weight if encoder else 1.0)

    def prediction_sets(self, output: DetectorOutput, targets: Targets) -> list[PredictionSet]:
        """Every prediction set of the output with its matches: decoder layers, encoder, denoising."""
        outputs = (*output.layers, output.encoder)
        one_class = [False] * len(output.layers) + [self.encoder_one_class]
        matches = self.matcher(outputs, targets, one_class)
        last = len(output.layers) - 1
        num_boxes = self.num_boxes(len(matches[last]), targets.boxes_cxcywh)
        sets = [
            self._set("decoder", i, i == last, layer, matches[i], targets, num_boxes)
            for i, layer in enumerate(output.layers)
        ]
        sets.append(self._set("encoder", 0, False, output.encoder, matches[-1], targets, num_boxes))
        if output.layout is not None:
            pairs = denoising_matches(targets, output.layout)
            copies = num_boxes * output.layout.groups
            sets += [
                self._set("denoising", i, i == last, layer, pairs, targets, copies)
                for i, layer in enumerate(output.denoising)
            ]
        return sets

    def _set(
        self,
        kind: Literal["decoder", "encoder", "denoising"],
        layer: int,
        is_last: bool,
        outputs: LayerOutput,
        matches: Matches,
        targets: Targets,
        num_boxes: Tensor,
    ) -> PredictionSet:
        labels = targets.labels[matches.target]
        if kind == "encoder" and self.encoder_one_class:
            labels = torch.zeros_like(labels)
        return PredictionSet(
            kind=kind,
            layer=layer,
            is_last=is_last,
            outputs=outputs,
            matches=matches,
            labels=labels,
            boxes_cxcywh=targets.boxes_cxcywh[matches.target],
            class_indices=self.federated(labels) if self.federated is not None else None,
            num_boxes=num_boxes,
        )

    def num_boxes(self, pairs: int, like: Tensor) -> Float[Tensor, ""]:
        """Matched pairs of the last layer, mean over ranks, at least 1."""
        return distributed.all_reduce_mean(like.new_full((), float(pairs))).clamp(min=1)

    def set_losses(self, predictions: PredictionSet, targets: Targets, semantic: Any) -> dict[str, Tensor]:
        """All losses of one prediction set, normalised, by name without suffix."""
        matches, num_boxes = predictions.matches, predictions.num_boxes
        logits = at_least_float32(predictions.outputs.logits)
        one_hot = torch.zeros_like(logits)
        one_hot[matches.image, matches.query, predictions.labels] = 1
        if predictions.class_indices is not None:
            logits, one_hot = logits[..., predictions.class_indices], one_hot[..., predictions.class_indices]
        boxes = at_least_float32(predictions.outputs.boxes_cxcywh)[matches.image, matches.query]
        target_boxes = predictions.boxes_cxcywh.to(boxes.dtype)
        losses = {
            "loss_ce": sigmoid_focal_loss(logits, one_hot, self.alpha, gamma=2, reduction="sum") / num_boxes,
            "loss_bbox": l1_loss_sum(boxes, target_boxes) / num_boxes,
            "loss_giou": giou_loss_sum(boxes, target_boxes) / num_boxes,
        }
        for loss in self.extra_losses:
            losses.update(loss(predictions, targets, semantic))
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
