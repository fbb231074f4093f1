"""The language classifier: cosine between a projected query and the classes' text embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TextEmbeddings(nn.Module):
    """The vocabulary as the model holds it, frozen.

    raw:       (C, E) mean of un-normalised text encodings.
    log_scale: () log of CLIP's logit scale.
    """

    def __init__(self, raw: Tensor, log_scale: Tensor | float):
        super().__init__()
        self.register_buffer("raw", raw.detach().clone().float())
        self.register_buffer("log_scale", torch.as_tensor(log_scale, dtype=torch.float32).detach().clone())

    def logits(self, unit: Tensor, columns: Tensor | None = None) -> Tensor:
        """Scaled cosines of unit vectors (..., E) with the classes: (..., C), or the given columns."""
        raw = self.raw if columns is None else self.raw[columns]
        # In float32 at least: at a scale of 100, 16-bit cosines would be off by up to 0.4.
        with torch.autocast(unit.device.type, enabled=False):
            return self.log_scale.exp() * (unit.to(raw.dtype) @ F.normalize(raw, dim=-1).T)


class LanguageClassifier(nn.Module):
    """Class scores (..., D) -> (..., C): CLIP's scale times the cosine with each class's text. No bias."""

    def __init__(self, projection: nn.Module, text: TextEmbeddings):
        super().__init__()
        self.projection = projection
        self.text = text

    def forward(self, queries: Tensor) -> Tensor:
        return self.text.logits(unit_vectors(self.projection, queries))

    def best(self, queries: Tensor) -> Tensor:
        """(..., D) -> (...) the highest class score; under autocast in 16 bit, as it only ranks."""
        unit = F.normalize(self.projection(queries), dim=-1)
        cosine = unit @ F.normalize(self.text.raw, dim=-1).T.to(unit.dtype)
        return cosine.amax(-1) * self.text.log_scale.exp()


class LabelProjection(nn.Module):
    """Denoising content of a class: a projection of its raw, un-normalised text embedding."""

    def __init__(self, dim: int, text: TextEmbeddings):
        super().__init__()
        self.text = text
        self.projection = nn.Linear(text.raw.shape[1], dim, bias=False)

    def forward(self, labels: Tensor) -> Tensor:
        """(K,) -> (K, D)."""
        return self.projection(self.text.raw[labels])


def unit_vectors(projection: nn.Module, queries: Tensor) -> Tensor:
    """Projected queries of length 1, in float32 at least."""
    projected = projection(queries)
    if projected.dtype in (torch.float16, torch.bfloat16):
        projected = projected.float()
    return F.normalize(projected, dim=-1)
