"""Detector outputs: one type, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LayerOutput:
    """Predictions of one decoder layer, or of the encoder's chosen proposals.

    logits:       (B, Q, C) class scores before the sigmoid.
    boxes_cxcywh: (B, Q, 4) in 0..1 of the image without its padding.
    hidden:       (B, Q, D) the normalised queries that these predictions were made from.
    reference_boxes: (B, Q, 4) the boxes that entered the layer, detached; None for the encoder.
    embedding:    (B, Q, E) unit vectors of the semantic branch, in training only; None where there is none.
    """

    logits: Float[Tensor, "B Q C"]
    boxes_cxcywh: Float[Tensor, "B Q 4"]
    hidden: Float[Tensor, "B Q D"] | None = None
    reference_boxes: Float[Tensor, "B Q 4"] | None = None
    embedding: Float[Tensor, "B Q E"] | None = None


@dataclass(frozen=True)
class LayerStack:
    """Predictions of L decoder layers: what `LayerOutput` has of one, of all in one tensor.

    embedding: (L', B, Q, E) of the last L' layers.
    """

    logits: Float[Tensor, "L B Q C"]
    boxes_cxcywh: Float[Tensor, "L B Q 4"]
    hidden: Float[Tensor, "L B Q D"] | None = None
    reference_boxes: Float[Tensor, "L B Q 4"] | None = None
    embedding: Float[Tensor, "_ B Q E"] | None = None

    @classmethod
    def of(cls, *layers: LayerOutput) -> LayerStack:
        """The stack of these layers, which have the same fields."""
        rows = {f.name: [getattr(layer, f.name) for layer in layers] for f in fields(LayerOutput)}
        stacks: dict[str, Any] = {
            name: None if row[0] is None else torch.stack(row) for name, row in rows.items()
        }
        return cls(**stacks)

    def __len__(self) -> int:
        return len(self.logits)

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

    def slice_queries(self, start: int, stop: int | None) -> LayerStack:
        """The same for queries start..stop."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        cut: dict[str, Any] = {
            name: None if t is None else t[:, :, start:stop] for name, t in tensors.items()
        }
        return LayerStack(**cut)


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
    def layers(self) -> tuple[LayerOutput, ...]:
        """The decoder's layers."""
        return tuple(self.decoder)

    @property
    def final(self) -> LayerOutput:
        return self.decoder[-1]
