"""The criterion: one loss path for every set of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from models.dino.federated import ClassSample, FederatedClasses
from models.dino.layers import at_least_float32
from models.dino.losses import giou_loss, l1_loss
from models.dino.matcher import HungarianMatcher, Matches, label_logits
from models.dino.one_query import Rule, choose_queries
from models.dino.output import DenoisingLayout, DetectorOutput, LayerOutput, LayerStack, logits_of
from util import distributed
from util.structures import Losses, Targets

Kind = Literal["decoder", "encoder", "denoising"]
# Of every prediction set, by their names without suffix.
SET_LOSSES = ("loss_ce", "loss_bbox", "loss_giou")


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
    sample:        classes that the federated loss looks at; None for all.
    num_boxes:     what sums are divided by.
    taught:        (K,) whether a pair is taught, and nothing but such pairs: no other query learns that it
                   shows no object. None for all pairs, and all queries.
    """

    kind: Kind
    layer: int
    is_last: bool
    outputs: LayerOutput
    matches: Matches
    labels: Int64[Tensor, " K"]
    boxes_cxcywh: Float[Tensor, "K 4"]
    sample: ClassSample | None
    num_boxes: Float[Tensor, ""]
    taught: Bool[Tensor, " K"] | None = None

    @property
    def suffix(self) -> str:
        """What the official release appends to loss names: '', '_0', '_interm', '_dn', '_dn_0', ..."""
        if self.kind == "encoder":
            return "_interm"
        return ("_dn" if self.kind == "denoising" else "") + ("" if self.is_last else f"_{self.layer}")


@dataclass(frozen=True)
class PredictionSets:
    """S prediction sets with as many queries and pairs each, whose losses are computed together.

    kinds, layers: of each set.
    outputs: the predictions of the sets, in stacks.
    matches, labels, boxes_cxcywh, sample: as of `PredictionSet`, of all sets: (S, K), (S, K, 4), (S, M).
    judged: whether a class was looked for in an image, so that its absence may be taught; None for all.
    num_boxes: what sums are divided by.
    taught: as of `PredictionSet`, (S, K).
    """

    kinds: tuple[Kind, ...]
    layers: tuple[int, ...]
    outputs: tuple[LayerStack, ...]
    matches: Matches
    labels: Int64[Tensor, "S K"]
    boxes_cxcywh: Float[Tensor, "S K 4"]
    sample: ClassSample | None
    judged: Bool[Tensor, "S B C"] | None
    num_boxes: Float[Tensor, ""]
    taught: Bool[Tensor, "S K"] | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[PredictionSet]:
        """One by one."""
        outputs = chain(*self.outputs)
        for i, (kind, layer, predicted) in enumerate(zip(self.kinds, self.layers, outputs, strict=True)):
            yield PredictionSet(
                kind=kind,
                layer=layer,
                is_last=kind != "encoder" and layer == max(self.layers),
                outputs=predicted,
                matches=self.matches[i],
                labels=self.labels[i],
                boxes_cxcywh=self.boxes_cxcywh[i],
                sample=None if self.sample is None else self.sample[i],
                num_boxes=self.num_boxes,
                taught=None if self.taught is None else self.taught[i],
            )


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
    one_query: how to choose the one query of each decoder layer that learns an image-level label; nothing
        else is taught: no matching, no box losses, no encoder (Detic; see `choose_queries`). None for the
        whole image as a box like any other.
    federated: draws the classes that a call looks at, or None for all.
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
        one_query: Rule | None = None,
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
        self.one_query = one_query
        self._weights: dict[tuple, Tensor] = {}

    def forward(self, output: DetectorOutput, targets: Targets, semantic: Any = None) -> Losses:
        """output of the model in training, its targets, and what the teacher saw (None without one)."""
        named: dict[str, Tensor] = {}
        groups = self.prediction_sets(output, targets)
        members = list(chain(*groups))
        losses = self.set_losses(groups)
        weights = [self.loss_weight(n, m.kind, targets.image_level) for n in SET_LOSSES for m in members]
        total = (losses * self._on_device(weights, losses).view_as(losses)).sum()
        for name, row in zip(SET_LOSSES, losses.detach(), strict=True):
            named |= {
                name + m.suffix: loss
                for m, loss in zip(members, row.unbind(), strict=True)
                if not self._untaught(name, m.kind, targets.image_level)
            }
        for member in members:
            for extra in self.extra_losses:
                for name, loss in extra(member, targets, semantic).items():
                    total = total + self.loss_weight(name, member.kind, targets.image_level) * loss
                    if not self._untaught(name, member.kind, targets.image_level):
                        named[name + member.suffix] = loss.detach()
        return Losses(total, named)

    def _on_device(self, weights: Sequence[float], like: Tensor) -> Tensor:
        """A tensor of weights, made once: to copy numbers to a GPU takes a moment at every step."""
        key = (tuple(weights), like.device, like.dtype)
        if key not in self._weights:
            self._weights[key] = like.new_tensor(weights)
        return self._weights[key]

    def loss_weight(self, name: str, kind: str, image_level: bool) -> float:
        """Weight of one loss: its base weight, times the encoder's factor, 0 where image-level data masks it.

        Masks never touch the encoder's losses (release behaviour).
        """
        encoder = kind == "encoder"
        if self._untaught(name, kind, image_level):
            return 0.0
        if image_level and not encoder and any(part in name for part in self.ignored_on_image_level):
            return 0.0
        return self.weights[name] * (self.interm_weight if encoder else 1.0)

    def _untaught(self, name: str, kind: str, image_level: bool) -> bool:
        """Whether `one_query` leaves this loss out of image-level batches: of sum and named losses."""
        no_class = kind != "decoder" or name in ("loss_bbox", "loss_giou")
        return image_level and self.one_query is not None and no_class

    def prediction_sets(self, output: DetectorOutput, targets: Targets) -> list[PredictionSets]:
        """Every prediction set of the output with its matches: decoder layers and encoder, denoising."""
        layers = tuple(range(len(output.decoder)))
        matched = (output.decoder, LayerStack.of(output.encoder))
        taught = None
        if self.one_query and targets.image_level:
            boxes = torch.cat([stack.boxes_cxcywh for stack in matched])
            by_score = self.one_query == "max_score"
            labels = [targets.labels] * len(matched)
            matches, taught = choose_queries(
                boxes, targets, label_logits(matched, targets, labels) if by_score else None
            )
        else:
            matches = self.matcher(matched, targets, [False, self.encoder_one_class])
        num_boxes = self.num_boxes(len(matches), targets.boxes_cxcywh)
        decoder: list[Kind] = ["decoder"] * len(layers)
        first = self._sets((*decoder, "encoder"), (*layers, 0), matched, matches, targets, num_boxes)
        sets = [replace(first, taught=taught)]
        if output.denoising is not None and output.layout is not None:
            # Image-level batches may have no noised boxes.
            noised_targets = targets if output.layout.max_boxes else targets.without_boxes()
            pairs = denoising_matches(noised_targets, output.layout).expand(len(layers))
            copies = num_boxes * output.layout.groups
            noised: list[Kind] = ["denoising"] * len(layers)
            sets.append(self._sets(tuple(noised), layers, (output.denoising,), pairs, targets, copies))
        return sets

    def _sets(
        self,
        kinds: tuple[Kind, ...],
        layers: tuple[int, ...],
        outputs: tuple[LayerStack, ...],
        matches: Matches,
        targets: Targets,
        num_boxes: Tensor,
    ) -> PredictionSets:
        labels, judged, draw = targets.labels[matches.target], targets.judged, self.federated
        candidates = None if judged is None else judged.any(0)
        if judged is not None:
            judged = judged.expand(len(kinds), *judged.shape)
        if self.encoder_one_class and kinds[-1] == "encoder":
            labels[-1] = 0
            # Any object counts there, and every image is judged for objects.
            judged = None if judged is None else torch.cat((judged[:-1], torch.ones_like(judged[-1:])))
        return PredictionSets(
            kinds=kinds,
            layers=layers,
            outputs=outputs,
            matches=matches,
            labels=labels,
            boxes_cxcywh=targets.boxes_cxcywh[matches.target],
            sample=None if draw is None else draw(labels, len(targets.labels), candidates),
            judged=judged,
            num_boxes=num_boxes,
        )

    def num_boxes(self, pairs: int, like: Tensor) -> Float[Tensor, ""]:
        """Matched pairs of the last layer, mean over ranks, at least 1."""
        return distributed.all_reduce_mean(like.new_full((), float(pairs))).clamp(min=1)

    def set_losses(self, groups: Sequence[PredictionSets]) -> Float[Tensor, "3 S"]:
        """SET_LOSSES of all S prediction sets in their order, normalised.

        Groups differ in queries and pairs, so they meet as flat tensors: every loss is called once.
        """
        boxes = at_least_float32(torch.cat([_matched_boxes(sets) for sets in groups]))
        target_boxes = torch.cat([sets.boxes_cxcywh.flatten(0, 1) for sets in groups]).to(boxes.dtype)
        normaliser = torch.cat([sets.num_boxes.expand(len(sets)) for sets in groups])
        pairs = [(len(sets), len(sets.matches)) for sets in groups]
        box_losses = torch.stack((l1_loss(boxes, target_boxes), giou_loss(boxes, target_boxes)))
        return torch.cat((self._class_losses(groups)[None], _sums(box_losses, pairs))) / normaliser

    def _class_losses(self, groups: Sequence[PredictionSets]) -> Float[Tensor, " S"]:
        """Sums of the focal loss over queries and classes.

        Where a class was not judged in an image, only its positives count.
        """
        parts = [_class_logits(sets) for sets in groups]
        logits, one_hot = (torch.cat([t.flatten() for t in tensors]) for tensors in zip(*parts, strict=True))
        focal = sigmoid_focal_loss(at_least_float32(logits), one_hot, self.alpha, gamma=2)
        sums = []
        values = focal.split([logits.numel() for logits, _ in parts])
        for sets, flat, (shaped, taught) in zip(groups, values, parts, strict=True):
            value = flat.view(shaped.shape)
            if sets.judged is not None:
                value = torch.where(_judged_columns(sets)[:, :, None] | (taught > 0), value, 0)
            if sets.taught is not None:
                value = torch.where((taught > 0).any(-1, keepdim=True), value, 0)
            by_class = value.flatten(1, 2).sum(1)
            sums.append((by_class if sets.sample is None else by_class * sets.sample.valid).sum(-1))
        return torch.cat(sums)


def _matched_boxes(sets: PredictionSets) -> Float[Tensor, "P 4"]:
    """The predicted box of every pair, set after set."""
    boxes = torch.cat([stack.boxes_cxcywh for stack in sets.outputs])
    return boxes[_places(sets)].flatten(0, 1)


def _places(sets: PredictionSets) -> tuple[Tensor, Tensor, Tensor]:
    """Set, image and query of every pair, (S, K) each or a shape that broadcasts to it."""
    row = torch.arange(len(sets), device=sets.labels.device)[:, None]
    return row, sets.matches.image, sets.matches.query


def _judged_columns(sets: PredictionSets) -> Bool[Tensor, "S B M"]:
    """`judged` of the classes that the loss looks at."""
    assert sets.judged is not None
    if sets.sample is None:
        return sets.judged
    columns = sets.sample.columns[:, None].expand(-1, sets.judged.shape[1], -1)
    return sets.judged.gather(2, columns)


def _class_logits(sets: PredictionSets) -> tuple[Float[Tensor, "S B Q M"], Float[Tensor, "S B Q M"]]:
    """The logits of the classes that the loss looks at, and 1 where a query is taught a class."""
    if sets.sample is None:
        logits = torch.cat([logits_of(stack.classes) for stack in sets.outputs])
        one_hot = torch.zeros_like(logits)
        places = (*_places(sets), sets.labels)
        if sets.taught is None:
            one_hot[places] = 1
        else:
            # A pair that is not taught may name the query of one that is.
            one_hot.index_put_(places, sets.taught.to(one_hot.dtype), accumulate=True)
        return logits, one_hot
    columns = sets.sample.columns
    parts = zip(sets.outputs, columns.split([len(stack) for stack in sets.outputs]), strict=True)
    logits = torch.cat([logits_of(stack.classes, part) for stack, part in parts])
    one_hot = torch.zeros_like(logits)
    rows = (sets.labels[..., None] == columns[:, None]).to(one_hot.dtype)
    if sets.taught is not None:
        rows = rows * sets.taught[..., None]
    one_hot.index_put_(_places(sets), rows, accumulate=sets.taught is not None)
    return logits, one_hot


def _sums(values: Float[Tensor, "N P"], shapes: Sequence[tuple[int, int]]) -> Float[Tensor, "N S"]:
    """Row sums of tables of these shapes, which lie one after the other in each of N `values`."""
    parts = values.split([rows * columns for rows, columns in shapes], 1)
    return torch.cat([p.unflatten(1, shape).sum(-1) for p, shape in zip(parts, shapes, strict=True)], 1)


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
