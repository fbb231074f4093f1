"""The language classifier: cosine between a projected query and the classes' text embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.dino.heads import FOREGROUND_PRIOR, aligned
from models.dino.kept import Kept, identity
from models.dino.layers import at_least_float32, without_autocast
from models.dino.ops.linear import Linear, linear
from models.dino.sixteen_bit import autocast_type

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
        self._kept = Kept(1)

    @property
    def unit(self) -> Float[Tensor, "C E"]:
        """The embeddings scaled to length 1. Kept: they do not change in a run."""
        raw = self.raw
        if torch.compiler.is_compiling():
            return F.normalize(raw, dim=-1)
        return self._kept(identity(raw), lambda: F.normalize(raw, dim=-1))

    def logits(
        self, unit: Float[Tensor, "*shape E"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """Scaled cosines of unit vectors (..., E) with the classes: (..., C), or the given columns.

        columns: (M,), or (S, M) for unit vectors (S, ..., E).
        """
        return self._scaled_products(unit, self._rows(columns))

    def logits_through(
        self,
        projection: Float[Tensor, "E D"],
        vectors: Float[Tensor, "*shape D"],
        columns: Int64[Tensor, "*sets M"] | None = None,
    ) -> Float[Tensor, "*shape _"]:
        """The same of vectors (..., D) whose projections have length 1; the classes are projected instead."""
        with without_autocast(vectors.device):
            return self._scaled_products(vectors, self._rows(columns) @ projection)

    def _rows(self, columns: Int64[Tensor, "*sets M"] | None) -> Float[Tensor, "*sets _ E"]:
        return self.unit if columns is None else self.unit[columns]

    def _scaled_products(
        self, vectors: Float[Tensor, "*shape D"], rows: Float[Tensor, "*sets M D"]
    ) -> Float[Tensor, "*shape M"]:
        # At least float32: at a scale of 100, logits from 16-bit cosines are off by up to 0.4.
        with without_autocast(vectors.device):
            return self.log_scale.exp() * (vectors.to(rows.dtype) @ aligned(rows, vectors).mT)


@dataclass(frozen=True)
class FoldedClasses:
    """Classes as queries meet them before their projection, so that only the classes are projected.

    With a query q, the projection P and unit text embeddings T, the cosines are T P q / |P q|, and |P q| is
    the root of q' P'P q. That leaves D (C + D) multiplications a query instead of D E + E C.

    rows: (C, D) T P.  gram: (D, D) P'P.  scale: () of the cosines.
    """

    rows: Float[Tensor, "C D"]
    gram: Float[Tensor, "D D"]
    scale: Float[Tensor, ""]

    @classmethod
    def of(cls, projection: Float[Tensor, "E D"], text: TextEmbeddings) -> FoldedClasses:
        with without_autocast(projection.device):
            return cls(text.unit @ projection, projection.T @ projection, text.log_scale.exp())

    def max_logit(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
        """(..., D) -> (...), the highest class logit; under autocast the classes are compared in 16 bit."""
        dtype = autocast_type(queries.device) or self.rows.dtype
        with without_autocast(queries.device):
            best = linear(queries.to(dtype), self.rows.to(dtype)).amax(-1)
            return best * (self.scale / projected_length(queries.to(self.gram.dtype), self.gram))


def projected_length(
    queries: Float[Tensor, "*shape D"], gram: Float[Tensor, "D D"]
) -> Float[Tensor, "*shape"]:
    """|P q| of gram = P'P, at least 1e-6."""
    return (linear(queries, gram) * queries).sum(-1).clamp(min=1e-12).sqrt()


class LanguageClassifier(nn.Module):
    """Class logits (..., D) -> (..., C): CLIP's scale times the cosine to each class's text. No bias.

    In training, where few classes are read, those are projected instead of the queries (`FoldedClasses`).
    """

    def __init__(self, projection: nn.Module, text: TextEmbeddings):
        super().__init__()
        self.projection = projection
        self.text = text

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape C"]:
        return self.text.logits(unit_vectors(self.projection, queries))

    @property
    def _product(self) -> Float[Tensor, "E D"] | None:
        """The projection's matrix, where it is no more than that."""
        projection = self.projection
        return projection.weight if isinstance(projection, nn.Linear) and projection.bias is None else None

    @property
    def _folded(self) -> Float[Tensor, "E D"] | None:
        """The projection's matrix, where it is less work to project the classes."""
        weight = self._product
        return weight if weight is not None and weight.shape[1] < weight.shape[0] else None

    def features(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape _"]:
        """Unit vectors in CLIP's space; where classes are projected, queries whose projections are those."""
        weight = self._folded
        if weight is None:
            return unit_vectors(self.projection, queries)
        with without_autocast(queries.device):
            exact = queries.to(weight.dtype)
            return exact / projected_length(exact, weight.T @ weight)[..., None]

    def score(
        self, features: Float[Tensor, "*shape _"], columns: Int64[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*shape _"]:
        """See ColumnClassifier. At least float32."""
        weight = self._folded
        if weight is None:
            return self.text.logits(features, columns)
        return self.text.logits_through(weight, features, columns)

    def ranking(self) -> Callable[[Tensor], Tensor]:
        """(..., D) -> (...), the highest class logit; 16 bit under autocast, which is enough for ranking."""
        if self._product is not None:
            return FoldedClasses.of(self._product, self.text).max_logit
        return lambda queries: self(queries).amax(-1)


class TextLabelEmbedding(nn.Module):
    """Denoising query of a class: a projection of its un-normalised text embedding."""

    def __init__(self, dim: int, text: TextEmbeddings):
        super().__init__()
        self.text = text
        self.projection = Linear(text.raw.shape[1], dim, bias=False)

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
