"""The language classifier: cosine between a projected query and the classes' text embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.dino.heads import FOREGROUND_PRIOR, aligned
from models.dino.layers import at_least_float32, without_autocast

# Length of the norm's bias that carries the prior: large relative to the norm's unit variance.
PRIOR_BIAS = 4.0


class TextEmbeddings(nn.Module):
    """The vocabulary inside the model: buffers, never trained.

    raw:       (C, E) mean of each class's un-normalised text encodings.
    log_scale: () log of CLIP's logit scale.
    """

    raw: Tensor
    log_scale: Tensor

    def __init__(self, raw: Float[Tensor, "C E"], log_scale: Float[Tensor, ""] | float):
        super().__init__()
        self.register_buffer("raw", raw.detach().clone().float())
        self.register_buffer("log_scale", torch.as_tensor(log_scale, dtype=torch.float32).detach().clone())

    def logits(
        self, unit: Float[Tensor, "*shape E"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """Scaled cosines of unit vectors (..., E) with the classes: (..., C), or the given columns.

        columns: (M,), or (S, M) for unit vectors (S, ..., E).
        """
        raw = self.raw if columns is None else self.raw[columns]
        # At least float32: at a scale of 100, logits from 16-bit cosines are off by up to 0.4.
        with without_autocast(unit.device):
            rows = aligned(F.normalize(raw, dim=-1), unit)
            return self.log_scale.exp() * (unit.to(raw.dtype) @ rows.mT)


class LanguageClassifier(nn.Module):
    """Class logits (..., D) -> (..., C): CLIP's scale times the cosine to each class's text. No bias."""

    def __init__(self, projection: nn.Module, text: TextEmbeddings):
        super().__init__()
        self.projection = projection
        self.text = text

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape C"]:
        return self.score(self.features(queries))

    def features(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape E"]:
        """Unit vectors in CLIP's space."""
        return unit_vectors(self.projection, queries)

    def score(
        self, features: Float[Tensor, "*shape E"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """See ColumnClassifier."""
        return self.text.logits(features, columns)

    def max_logit(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
        """(..., D) -> (...), the highest class logit; 16 bit under autocast, which is enough for ranking."""
        unit = F.normalize(self.projection(queries), dim=-1)
        cosine = unit @ F.normalize(self.text.raw, dim=-1).T.to(unit.dtype)
        return cosine.amax(-1) * self.text.log_scale.exp()


class TextLabelEmbedding(nn.Module):
    """Denoising query of a class: a projection of its un-normalised text embedding."""

    def __init__(self, dim: int, text: TextEmbeddings):
        super().__init__()
        self.text = text
        self.projection = nn.Linear(text.raw.shape[1], dim, bias=False)

    def forward(self, labels: Int64[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """(K,) -> (K, D)."""
        return self.projection(self.text.raw[labels])


@torch.no_grad()
def init_focal_prior_(classifier: LanguageClassifier, norm: nn.LayerNorm) -> None:
    """Initialises a classifier so that scores start at the focal loss's prior, as a linear one's do.

    CLIP's text embeddings share a common direction, and the logit scale is up to 100: with a default
    initialisation half of all queries would score high for every class. Here queries are projected away from
    the common direction, just far enough for the prior. A projection without bias gets that constant through
    the bias of `norm`, whose output it projects.
    """
    text, projection = classifier.text, classifier.projection
    common = F.normalize(text.raw, dim=-1).mean(0)
    prior_logit = math.log((1 - FOREGROUND_PRIOR) / FOREGROUND_PRIOR)
    cosine = min(0.9, prior_logit / float(text.log_scale.exp() * common.norm()))
    away = -F.normalize(common, dim=0)
    linear = projection if isinstance(projection, nn.Linear) else projection.layers[-1]
    weight = linear.weight
    weight -= torch.outer(away, away @ weight)
    if linear.bias is None:
        carrier = F.normalize(torch.randn_like(norm.bias), dim=0)
        norm.bias.copy_(PRIOR_BIAS * carrier)
        weight -= torch.outer(weight @ carrier, carrier)
    length = projection(torch.randn(256, len(norm.bias))).norm(dim=-1).median()
    length = float(length) * cosine / math.sqrt(1 - cosine**2)
    if linear.bias is None:
        weight += torch.outer(away, carrier) * (length / PRIOR_BIAS)
    else:
        linear.bias.copy_(length * away)


def unit_vectors(projection: nn.Module, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape E"]:
    """Projected queries scaled to length 1, at least float32."""
    return F.normalize(at_least_float32(projection(queries)), dim=-1)
