"""The semantic branch: a second projection of the decoder's queries, in training only."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from models.dino.decoder import DecoderStates
from models.dino.heads import DecoderHead
from models.dino.output import LayerStack
from models.richsem.classifier import unit_vectors


class SemanticHead(DecoderHead):
    """The decoder's head with the semantic branch beside its classifier.

    projection: queries (..., D) -> CLIP's space (..., E). every_layer: project the queries of all decoder
    layers, not only of the last (official `distill_aux_layers`).
    """

    def __init__(self, dim: int, classifier: nn.Module, projection: nn.Module, every_layer: bool):
        super().__init__(dim, classifier)
        self.semantic_projection = projection
        self.every_layer = every_layer

    def forward(self, states: DecoderStates) -> LayerStack:
        """As DecoderHead; in training also `embedding`, unit vectors, of the layers asked for."""
        output = super().forward(states)
        if not self.training:
            return output
        hidden = states.hidden if self.every_layer else states.hidden[-1:]
        return replace(output, embedding=unit_vectors(self.semantic_projection, hidden))
