"""Classifiers and the decoder's prediction head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.dino.decoder import DecoderStates
from models.dino.layers import at_least_float32, box_head, inverse_sigmoid
from models.dino.ops.linear import Linear, linear
from models.dino.output import Classes, ColumnClassifier, LayerStack, QueryLogits, logits_of

FOREGROUND_PRIOR = 0.01


def aligned(rows: Float[Tensor, "*sets M E"], features: Float[Tensor, "*shape _"]) -> Float[Tensor, "*_ M E"]:
    """Class rows with axes of length 1 behind their sets: to multiply with features (sets, ..., Q, E)."""
    sets = rows.shape[:-2]
    missing = features.dim() - 2 - len(sets)
    return rows.reshape(*sets, *([1] * missing if sets else []), *rows.shape[-2:])


def class_logits(classifier: nn.Module, queries: Float[Tensor, "*shape D"], training: bool) -> Classes:
    """What the classifier says of queries; in training, losses read few of its classes."""
    if not training:
        return classifier(queries)
    assert isinstance(classifier, ColumnClassifier)
    return QueryLogits(classifier.features(queries), classifier)


@dataclass(frozen=True)
class LateClassifier:
    """A classifier as a `ColumnClassifier` that does nothing before its logits are read."""

    classifier: nn.Module

    def features(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """The queries themselves."""
        return queries

    def score(
        self, features: Float[Tensor, "*shape D"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """See ColumnClassifier. At least float32: the autocast under which queries were made may be over."""
        return logits_of(self.classifier(at_least_float32(features)), columns)


class LinearClassifier(Linear):
    """Class logits (..., D) -> (..., C) of a linear layer whose bias starts at the focal loss's prior."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__(dim, num_classes)
        nn.init.constant_(self.bias, -math.log((1 - FOREGROUND_PRIOR) / FOREGROUND_PRIOR))

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape C"]:
        return self.score(queries)

    def features(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """The queries themselves."""
        return queries

    def score(
        self, features: Float[Tensor, "*shape D"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """See ColumnClassifier."""
        if columns is None:
            return linear(features, self.weight, self.bias)
        weight, bias = self.weight[columns], self.bias[columns]
        rows = aligned(weight, features)
        return features.to(weight.dtype) @ rows.mT + aligned(bias[..., None, :], features)

    def ranking(self) -> Callable[[Tensor], Tensor]:
        """(..., D) -> (...), the highest class logit."""
        return lambda queries: self(queries).amax(-1)


class ClassifierLabelEmbedding(nn.Module):
    """Denoising queries of a linear classifier: the class's weights (official `dn_labelbook_reuse_cls`)."""

    def __init__(self, classifier: LinearClassifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, labels: Int64[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """(K,) -> (K, D)."""
        return self.classifier.weight[labels]


class DecoderHead(nn.Module):
    """Class logits and boxes from a decoder layer's output; one head for all layers."""

    def __init__(self, dim: int, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier
        self.box_head = box_head(dim)

    def forward(self, states: DecoderStates) -> LayerStack:
        """Predictions of the decoder's layers."""
        references = states.reference_boxes
        delta = self.box_head(states.hidden).to(references.dtype)
        boxes = torch.sigmoid(delta + inverse_sigmoid(references))
        classes = class_logits(self.classifier, states.hidden, self.training)
        return LayerStack(classes, boxes, states.hidden, references.detach())
