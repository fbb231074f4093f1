"""The classes that a trained model is asked for: its own by their trained rows, and other words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.dino.detector import Detector
from models.dino.heads import LinearClassifier
from models.richsem.classifier import LanguageClassifier, TextEmbeddings, unit_vectors
from util.errors import UserError

SelectBy = Literal["trained", "names"]


@dataclass(frozen=True)
class Vocabulary:
    """The output classes of a model, in the order of its columns.

    names:     one for each column.
    columns:   the trained column of each, -1 for a word that the model was not trained on.
    extends:   all trained columns come first, as they are, and the other words follow.
    select_by: whose scores choose the decoder's queries among the encoder's tokens: 'trained', the
        checkpoint's classes, or 'names', those of this vocabulary. With 'trained', what a trained class
        scores does not depend on the words beside it.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    extends: bool
    select_by: SelectBy

    @property
    def new_names(self) -> tuple[str, ...]:
        """The words without a trained column, in order."""
        return tuple(n for n, column in zip(self.names, self.columns, strict=True) if column < 0)


class ExtendedClassifier(nn.Module):
    """A trained classifier and more classes behind its own: (..., D) -> (..., C + K).

    The trained columns are the trained classifier's own matrix product, so they do not change by a bit.
    select_by: see `Vocabulary`.
    """

    def __init__(self, trained: LanguageClassifier, added: TextEmbeddings, select_by: SelectBy):
        super().__init__()
        self.trained = trained
        self.added = added
        self.select_by = select_by

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape _"]:
        return self.logits(unit_vectors(self.trained.projection, queries))

    def logits(self, unit: Float[Tensor, "*shape E"]) -> Float[Tensor, "*shape _"]:
        """As `TextEmbeddings.logits`, of all classes."""
        return torch.cat((self.trained.text.logits(unit), self.added.logits(unit)), dim=-1)

    def max_logit(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape"]:
        """(..., D) -> (...), the highest logit of the classes that `select_by` names."""
        best = self.trained.max_logit(queries)
        if self.select_by == "trained":
            return best
        added = LanguageClassifier(self.trained.projection, self.added)
        return torch.maximum(best, added.max_logit(queries))


def change_vocabulary(
    model: Detector,
    vocabulary: Vocabulary,
    rows: Float[Tensor, "K E"] | None,
    *,
    one_class_encoder: bool = False,
) -> None:
    """Makes a trained model answer for `vocabulary`, in place. For inference: its denoising part goes.

    rows: of `vocabulary.new_names`, in the space of CLIP's texts; None where there are none.
    one_class_encoder: the encoder scores objectness in one column (`enc_cls_agn`), whatever the classes.
    Raises UserError where the model has no text classifier and a word is new.
    """
    model.denoising = None
    model.head.classifier = _asked(model.head.classifier, vocabulary, rows)
    if not (one_class_encoder or vocabulary.select_by == "trained"):
        selection = model.query_selection
        selection.classifier = _asked(selection.classifier, vocabulary, rows)


def check_words(model: Detector, vocabulary: Vocabulary) -> None:
    """Raises UserError where a word is new and the model has no text classifier to compare it with."""
    if vocabulary.new_names and not isinstance(model.head.classifier, LanguageClassifier):
        raise UserError(
            f"{vocabulary.new_names[0]!r} is not a class of this checkpoint, and it has no text classifier "
            "(use_language=False) that could score other words: ask for its own classes only"
        )


def _asked(classifier: nn.Module, vocabulary: Vocabulary, rows: Tensor | None) -> nn.Module:
    if isinstance(classifier, LinearClassifier):
        return _chosen_columns(classifier, [c for c in vocabulary.columns if c >= 0])
    assert isinstance(classifier, LanguageClassifier)
    if not vocabulary.extends:
        return LanguageClassifier(classifier.projection, _text_rows(classifier.text, vocabulary, rows))
    if rows is None:
        return classifier
    added = TextEmbeddings(rows, classifier.text.log_scale).to(classifier.text.raw.device)
    return ExtendedClassifier(classifier, added, vocabulary.select_by)


def _chosen_columns(classifier: LinearClassifier, columns: Sequence[int]) -> LinearClassifier:
    chosen = LinearClassifier(classifier.in_features, len(columns)).to(classifier.weight.device)
    with torch.no_grad():
        chosen.weight.copy_(classifier.weight[list(columns)])
        chosen.bias.copy_(classifier.bias[list(columns)])
    return chosen


def _text_rows(text: TextEmbeddings, vocabulary: Vocabulary, rows: Tensor | None) -> TextEmbeddings:
    new = iter(()) if rows is None else iter(rows.to(text.raw.device, text.raw.dtype))
    raw = torch.stack([next(new) if column < 0 else text.raw[column] for column in vocabulary.columns])
    return TextEmbeddings(raw, text.log_scale).to(text.raw.device)
