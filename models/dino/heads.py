"""Classifiers and the decoder's prediction head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.dino.decoder import DecoderLayerOutput
from models.dino.layers import box_head, inverse_sigmoid
from models.dino.output import LayerOutput

FOREGROUND_PRIOR = 0.01


class LinearClassifier(nn.Linear):
    """Class scores (..., D) -> (..., C) by a linear layer that starts at the focal loss's prior."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__(dim, num_classes)
        nn.init.constant_(self.bias, -math.log((1 - FOREGROUND_PRIOR) / FOREGROUND_PRIOR))

    def best(self, queries: Tensor) -> Tensor:
        """(..., D) -> (...) the highest class score."""
        return self(queries).amax(-1)


class ClassifierLabelEmbedding(nn.Module):
    """Denoising content of a linear classifier: the class's own row (official `dn_labelbook_reuse_cls`)."""

    def __init__(self, classifier: LinearClassifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, labels: Tensor) -> Tensor:
        """(K,) -> (K, D)."""
        return self.classifier.weight[labels]


class DecoderHead(nn.Module):
    """Class and box predictions of a decoder layer, shared by all layers."""

    def __init__(self, dim: int, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier
        self.box_head = box_head(dim)

    def forward(self, state: DecoderLayerOutput, last: bool) -> LayerOutput:
        """The predictions of one layer's state; `last` tells whether it is the last decoder layer."""
        delta = self.box_head(state.hidden).to(state.references.dtype)
        boxes = torch.sigmoid(delta + inverse_sigmoid(state.references))
        return LayerOutput(self.classifier(state.hidden), boxes, state.hidden, state.references.detach())
