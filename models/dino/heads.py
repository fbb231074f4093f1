"""Classifiers and the decoder's prediction head."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.dino.decoder import DecoderStates
from models.dino.layers import box_head, inverse_sigmoid
from models.dino.output import LayerStack

FOREGROUND_PRIOR = 0.01


class LinearClassifier(nn.Linear):
    """Class logits (..., D) -> (..., C) of a linear layer whose bias starts at the focal loss's prior."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__(dim, num_classes)
        nn.init.constant_(self.bias, -math.log((1 - FOREGROUND_PRIOR) / FOREGROUND_PRIOR))

    def max_logit(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
        """(..., D) -> (...), the highest class logit."""
        return self(queries).amax(-1)


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
        return LayerStack(self.classifier(states.hidden), boxes, states.hidden, references.detach())
