"""Detector outputs: one type, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class ColumnClassifier(Protocol):
    """A classifier that can score some of its classes only."""

    def features(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape E"]:
        """What `score` compares with the classes."""
        ...

    def score(
        self, features: Float[Tensor, "*shape E"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """Logits of all classes, or of M columns; each of the sets, the first axes, may have its own."""
        ...


@dataclass(frozen=True)
class QueryLogits:
    """Class logits of queries, computed where they are read, for the columns that are read.

    A loss that judges 50 of 1,203 classes needs no others.

    features: (..., E) what the classifier compares with its classes.
    """

    features: Float[Tensor, "*shape E"]
    classifier: ColumnClassifier

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: Any) -> QueryLogits:
        return QueryLogits(self.features[index], self.classifier)

    def split(self, sizes: list[int], dim: int) -> tuple[QueryLogits, ...]:
        """As of a tensor, along another axis than the last."""
        return tuple(QueryLogits(part, self.classifier) for part in self.features.split(sizes, dim))


Classes = Tensor | QueryLogits
"""Class logits, (..., Q, C), as they are or where they are read."""


def logits_of(classes: Classes, columns: Int64[Tensor, "*sets M"] | None = None) -> Float[Tensor, "*shape _"]:
    """The logits of all classes, or of some columns: the same for all queries (M,), or of each set (S, M)."""
    if isinstance(classes, QueryLogits):
        return classes.classifier.score(classes.features, columns)
    if columns is None:
        return classes
    if columns.dim() == 1:
        return classes[..., columns]
    return classes.gather(-1, columns[:, None, None].expand(*classes.shape[:-1], -1))


@dataclass(frozen=True)
class LayerOutput:
    """Predictions of one decoder layer, or of the encoder's chosen proposals.

    classes:      (B, Q, C) class scores before the sigmoid; in training computed where they are read.
    boxes_cxcywh: (B, Q, 4) in 0..1 of the image without its padding.
    hidden:       (B, Q, D) the normalised queries that these predictions were made from.
    reference_boxes: (B, Q, 4) the boxes that entered the layer, detached; None for the encoder.
    embedding:    (B, Q, E) unit vectors of the semantic branch, in training only; None where there is none.
    """

    classes: Classes
    boxes_cxcywh: Float[Tensor, "B Q 4"]
    hidden: Float[Tensor, "B Q D"] | None = None
    reference_boxes: Float[Tensor, "B Q 4"] | None = None
    embedding: Float[Tensor, "B Q E"] | None = None

    @property
    def logits(self) -> Float[Tensor, "B Q C"]:
        """Of all classes."""
        return logits_of(self.classes)


@dataclass(frozen=True)
class LayerStack:
    """Predictions of L decoder layers: what `LayerOutput` has of one, of all in one tensor.

    embedding: (L', B, Q, E) of the last L' layers.
    """

    classes: Classes
    boxes_cxcywh: Float[Tensor, "L B Q 4"]
    hidden: Float[Tensor, "L B Q D"] | None = None
    reference_boxes: Float[Tensor, "L B Q 4"] | None = None
    embedding: Float[Tensor, "_ B Q E"] | None = None

    @classmethod
    def of(cls, layer: LayerOutput) -> LayerStack:
        """A stack of one layer."""
        tensors = {f.name: getattr(layer, f.name) for f in fields(layer)}
        stacked: dict[str, Any] = {name: None if t is None else t[None] for name, t in tensors.items()}
        return cls(**stacked)

    def __len__(self) -> int:
        return len(self.boxes_cxcywh)

    def __getitem__(self, index: int) -> LayerOutput:
        """One layer."""
        behind = len(self) - range(len(self))[index]
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        layer: dict[str, Any] = {
            name: None if t is None or len(t) < behind else t[-behind] for name, t in tensors.items()
        }
        return LayerOutput(**layer)

    def __iter__(self) -> Iterator[LayerOutput]:
        return (self[i] for i in range(len(self)))

    def split_queries(self, count: int) -> tuple[LayerStack, LayerStack]:
        """The same for the first `count` queries, and for the others."""
        halves: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        for name, tensor in ((f.name, getattr(self, f.name)) for f in fields(self)):
            sizes = [] if tensor is None else [count, self.boxes_cxcywh.shape[2] - count]
            # One copy in the backward pass, where two slices would make four.
            parts = (None, None) if tensor is None else tensor.split(sizes, 2)
            for half, part in zip(halves, parts, strict=True):
                half[name] = part
        return LayerStack(**halves[0]), LayerStack(**halves[1])


@dataclass(frozen=True)
class DenoisingLayout:
    """Where the noised copies of the ground truth stand among the queries.

    Slots come first, the matching queries after them: `groups` blocks of [positives | negatives], each
    of the two padded to `max_boxes` slots, the largest box count in the batch.
    """

    groups: int
    max_boxes: int

    @property
    def num_denoising_queries(self) -> int:
        """How many denoising queries an image has."""
        return self.groups * 2 * self.max_boxes


@dataclass(frozen=True)
class DetectorOutput:
    """The detector's predictions for a batch.

    decoder:   the decoder's layers in order, the last one is the prediction. Training: all of them;
               evaluation: the last one alone.
    encoder:   the encoder's predictions at the chosen proposals (B, Q).
    denoising: the decoder's layers at the denoising slots; None in evaluation.
    layout:    where those slots belong; None in evaluation.
    """

    decoder: LayerStack
    encoder: LayerOutput
    denoising: LayerStack | None = None
    layout: DenoisingLayout | None = None

    @property
    def final(self) -> LayerOutput:
        return self.decoder[-1]
