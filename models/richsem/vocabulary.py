"""The classes that a trained model is asked for: its own by their trained rows, and other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.dino.detector import Detector
from models.dino.heads import LinearClassifier
from models.dino.layers import with_children, without_autocast
from models.dino.output import DetectorOutput, LayerOutput, LayerStack
from models.dino.query_selection import QuerySelection
from models.richsem.classifier import LanguageClassifier, TextEmbeddings, unit_vectors
from util.errors import UserError
from util.structures import PaddedImages, Targets

SelectBy = Literal["names", "trained"]


@dataclass(frozen=True)
class Vocabulary:
    """The output classes of a model, in the order of its columns.

    names:     one for each column.
    columns:   the trained column of each, -1 for a word that the model was not trained on.
    extends:   all trained columns come first, as they are, and the other words follow.
    select_by: whose scores choose the decoder's queries among the encoder's tokens. 'names': those of the
        vocabulary, where words that were not trained get queries of their own, in a second pass of the
        decoder. 'trained': those of the checkpoint's classes. In both, such words do not change what trained
        classes score.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    extends: bool
    select_by: SelectBy = "names"

    @property
    def new_names(self) -> tuple[str, ...]:
        """The words without a trained column, in order."""
        return self.part(new=True).names

    def part(self, *, new: bool) -> Vocabulary:
        """The words that were not trained alone, or those that were."""
        kept = [i for i, column in enumerate(self.columns) if (column < 0) == new]
        columns = tuple(self.columns[i] for i in kept)
        return Vocabulary(
            tuple(self.names[i] for i in kept), columns, extends=False, select_by=self.select_by
        )


class ClassRows(nn.Module):
    """Classes as a linear layer on unit vectors in CLIP's space, (..., E) -> (..., K)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Float[Tensor, "K E"], bias: Float[Tensor, " K"]):
        super().__init__()
        self.register_buffer("weight", weight.detach().clone().float())
        self.register_buffer("bias", bias.detach().clone().float())

    @classmethod
    def of_text(cls, raw: Float[Tensor, "K E"], log_scale: Float[Tensor, ""]) -> ClassRows:
        """The rows that score as `TextEmbeddings` do."""
        return cls(log_scale.exp() * F.normalize(raw, dim=-1), raw.new_zeros(len(raw)))

    def logits(self, unit: Float[Tensor, "*shape E"]) -> Float[Tensor, "*shape K"]:
        with without_autocast(unit.device):
            return F.linear(unit.to(self.weight.dtype), self.weight, self.bias)


@dataclass(frozen=True)
class NewRows:
    """The rows of words that were not trained, in order; K of them.

    head, encoder: for the decoder's queries and the encoder's tokens. Texts are the same for both; rows from
        example images are not.
    """

    head: TextEmbeddings | ClassRows
    encoder: TextEmbeddings | ClassRows

    @classmethod
    def of_text(cls, raw: Float[Tensor, "K E"], log_scale: Float[Tensor, ""]) -> NewRows:
        """raw: text embeddings. log_scale: of the model's cosines."""
        text = TextEmbeddings(raw, log_scale)
        return cls(text, text)

    def merged(self, texts: NewRows | None, order: Sequence[int]) -> NewRows:
        """These rows among those of texts: row i is `order[i]` of these, or with -1 the next text."""
        if texts is None:
            return self
        return NewRows(*(_merged(getattr(self, part), texts, order) for part in ("head", "encoder")))


class RowClassifier(nn.Module):
    """A `LanguageClassifier` whose rows are not all texts."""

    def __init__(self, projection: nn.Module, text: ClassRows):
        super().__init__()
        self.projection = projection
        self.text = text

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape K"]:
        return self.text.logits(unit_vectors(self.projection, queries))

    def ranking(self) -> Callable[[Tensor], Tensor]:
        """As `LanguageClassifier.ranking`."""
        return lambda queries: self(queries).amax(-1)


class ExtendedClassifier(nn.Module):
    """A trained classifier and more classes behind its own: (..., D) -> (..., C + K).

    The trained columns are the trained classifier's own matrix product, so they do not change by a bit.
    """

    def __init__(self, trained: LanguageClassifier, added: TextEmbeddings | ClassRows):
        super().__init__()
        self.trained = trained
        self.added = added

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape _"]:
        return self.logits(unit_vectors(self.trained.projection, queries))

    def logits(self, unit: Float[Tensor, "*shape E"]) -> Float[Tensor, "*shape _"]:
        """As `TextEmbeddings.logits`, of all classes."""
        return torch.cat((self.trained.text.logits(unit), self.added.logits(unit)), dim=-1)


class TwoPassDetector(Detector):
    """A trained detector that decodes twice: its own queries score trained classes, others new ones.

    new_selection: chooses the queries of the second pass. new: (C,) bool, the columns of new classes.
    The output is that of the two passes one after the other, (B, 2Q, C), with -inf where a query does not
    score a class. For inference.
    """

    new: Tensor

    def __init__(self, model: Detector, new_selection: QuerySelection, new: Bool[Tensor, " C"]):
        parts = ("backbone", "neck", "encoder", "query_selection", "decoder", "head")
        super().__init__(**{name: getattr(model, name) for name in parts}, denoising=None)
        self.new_selection = new_selection
        self.register_buffer("new", new)

    @property
    def selections(self) -> tuple[QuerySelection, ...]:
        """See Detector."""
        return self.query_selection, self.new_selection

    def forward(self, images: PaddedImages, targets: Targets | None = None) -> DetectorOutput:
        """As Detector."""
        memory = self.encode(images)
        own = self.decode(memory, self.query_selection(memory))
        others = self.decode(memory, self.new_selection(memory))
        joined = _joined(_masked(own.final, self.new), _masked(others.final, ~self.new))
        return DetectorOutput(LayerStack.of(joined), own.encoder)


def change_vocabulary(
    model: Detector, vocabulary: Vocabulary, rows: NewRows | None, *, one_class_encoder: bool = False
) -> Detector:
    """A trained model that answers for `vocabulary`: `model` itself, changed, or one around its parts.

    For inference: its denoising part goes. rows: of `vocabulary.new_names`, None where there are none.
    one_class_encoder: the encoder scores objectness in one column (`enc_cls_agn`), whatever the classes.
    The words must fit the model, see `check_words`.
    """
    model.denoising = None
    own, new = vocabulary.part(new=False), vocabulary.part(new=True)
    if not vocabulary.extends:
        model.head.classifier = _asked(model.head.classifier, vocabulary, rows.head if rows else None)
    elif rows is not None:
        assert isinstance(model.head.classifier, LanguageClassifier)
        model.head.classifier = ExtendedClassifier(model.head.classifier, rows.head.to(model.device))
    if one_class_encoder or vocabulary.select_by == "trained":
        return model
    trained_selection, encoder_rows = model.query_selection, rows.encoder if rows else None
    if not vocabulary.extends:
        first = own if own.names else new
        model.query_selection = _selection_by(trained_selection, first, encoder_rows)
    if not (own.names and new.names):
        return model
    is_new = torch.tensor([column < 0 for column in vocabulary.columns], device=model.device)
    return TwoPassDetector(model, _selection_by(trained_selection, new, encoder_rows), is_new)


def check_words(model: Detector, vocabulary: Vocabulary) -> None:
    """Raises UserError where a word is new and the model has no text classifier to compare it with."""
    if vocabulary.new_names and not isinstance(model.head.classifier, LanguageClassifier):
        raise UserError(
            f"{vocabulary.new_names[0]!r} is not a class of this checkpoint, and it has no text classifier "
            "(use_language=False) that could score other words: ask for its own classes only"
        )


def _selection_by(
    selection: QuerySelection, words: Vocabulary, rows: TextEmbeddings | ClassRows | None
) -> QuerySelection:
    """The selection of queries by the scores of some words. rows: of all that are new, if these are."""
    return with_children(
        selection, classifier=_asked(selection.classifier, words, rows if words.new_names else None)
    )


def _masked(layer: LayerOutput, columns: Tensor) -> LayerOutput:
    return LayerOutput(layer.logits.masked_fill(columns, -torch.inf), *_rest(layer))


def _joined(first: LayerOutput, second: LayerOutput) -> LayerOutput:
    def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat((a, b), dim=1)

    logits = torch.cat((first.logits, second.logits), dim=1)
    boxes, *others = [both(a, b) for a, b in zip(_rest(first), _rest(second), strict=True)]
    assert boxes is not None
    return LayerOutput(logits, boxes, *others)


def _rest(layer: LayerOutput) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return layer.boxes_cxcywh, layer.hidden, layer.reference_boxes


def _row_classifier(
    projection: nn.Module, rows: TextEmbeddings | ClassRows
) -> LanguageClassifier | RowClassifier:
    if isinstance(rows, TextEmbeddings):
        return LanguageClassifier(projection, rows)
    return RowClassifier(projection, rows)


def _asked(
    classifier: nn.Module, vocabulary: Vocabulary, rows: TextEmbeddings | ClassRows | None
) -> nn.Module:
    if isinstance(classifier, LinearClassifier):
        return _chosen_columns(classifier, [c for c in vocabulary.columns if c >= 0])
    assert isinstance(classifier, LanguageClassifier)
    text = classifier.text
    chosen: TextEmbeddings | ClassRows
    if isinstance(rows, ClassRows):
        own = ClassRows.of_text(text.raw, text.log_scale)
        weight = _ordered(own.weight, rows.weight, vocabulary.columns)
        chosen = ClassRows(weight, _ordered(own.bias, rows.bias, vocabulary.columns))
    else:
        raw = text.raw if rows is None else rows.raw
        chosen = TextEmbeddings(_ordered(text.raw, raw, vocabulary.columns), text.log_scale)
    return _row_classifier(classifier.projection, chosen.to(text.raw.device))


def _merged(rows: ClassRows, texts: NewRows, order: Sequence[int]) -> ClassRows:
    assert isinstance(texts.head, TextEmbeddings)
    own = ClassRows.of_text(texts.head.raw.to(rows.bias.device), texts.head.log_scale.to(rows.bias.device))
    weight, bias = _ordered(rows.weight, own.weight, order), _ordered(rows.bias, own.bias, order)
    return ClassRows(weight, bias)


def _ordered(trained: Tensor, new: Tensor, columns: Sequence[int]) -> Tensor:
    """Rows of `trained` by column, and for -1 the next of `new`."""
    following = iter(new.to(trained))
    return torch.stack([next(following) if column < 0 else trained[column] for column in columns])


def _chosen_columns(classifier: LinearClassifier, columns: Sequence[int]) -> LinearClassifier:
    chosen = LinearClassifier(classifier.in_features, len(columns)).to(classifier.weight.device)
    with torch.no_grad():
        chosen.weight.copy_(classifier.weight[list(columns)])
        chosen.bias.copy_(classifier.bias[list(columns)])
    return chosen
