"""Asks a trained model for other words: the user's request, matched to its classes and put into the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from config import Config
from datasets.annotations.categories import Category
from datasets.annotations.words import Words, match_words, read_words
from inference.examples import Examples
from inference.torch_model import TorchModel
from models.richsem.load import TrainedModel, text_of_model, text_rows, with_vocabulary
from models.richsem.vocabulary import NewRows, SelectBy, Vocabulary, check_words
from util.checkpoint import Checkpoint
from util.errors import UserError, listed

_MOST_NAMED = 5


@dataclass(frozen=True)
class WordRequest:
    """What a user asks a model for.

    names:     the output's classes, exactly these in this order: a comma-separated list, a file with one a
        line, or a sequence.
    add_names: the same, behind the model's own classes instead.
    prompts:   templates with {} where the word goes, for words that the model was not trained on.
    examples:  folder of example images, see `Examples`: a class of it that the model was not trained on gets
        its row from them, not from its text. Without names, its classes are words of add_names.
    select_by: see `Vocabulary`.
    """

    names: Words | None = None
    add_names: Words | None = None
    prompts: Sequence[str] = ()
    examples: str | Path | None = None
    select_by: SelectBy | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return not (self.names is None and self.add_names is None and self.examples is None)


def ask(
    trained: TrainedModel,
    checkpoint: Checkpoint,
    config: Config,
    request: WordRequest,
    categories: Iterable[Category] = (),
) -> TrainedModel:
    """The model with the vocabulary that is asked for; `trained` itself where nothing is.

    categories: of an annotation file, for their synonyms. CLIP is loaded only for words without a row.
    Raises UserError for unfit words, for words that the model cannot score, and where CLIP cannot be loaded.
    """
    if not request:
        if request.prompts:
            raise UserError("prompts are for the words of names or add_names: give one of these too")
        return trained
    examples = Examples.open(str(request.examples)) if request.examples is not None else None
    vocabulary = make_vocabulary(
        request, trained.class_names, trained.unused, categories, examples.names if examples else ()
    )
    check_words(trained.model, vocabulary)
    new = vocabulary.new_names
    category_of = dict(zip(new, examples.categories_of(new) if examples else (), strict=False))
    shown = [word for word in new if category_of.get(word, -1) >= 0]
    read = [word for word in new if word not in shown]
    if examples and not shown:
        known = listed([repr(name) for name in examples.names], _MOST_NAMED)
        raise UserError(f"{examples.path}: its classes ({known}) are none of the words that are asked for")
    raw = text_rows(trained, checkpoint, config, read, request.prompts) if read else None
    rows = NewRows.of_text(raw, text_of_model(trained).log_scale) if raw is not None else None
    if examples:
        model = TorchModel(trained, checkpoint, config, trained.model.device)
        fitted = examples.rows(model, [category_of[word] for word in shown])
        rows = fitted.merged(rows, [shown.index(w) if w in shown else -1 for w in new])
    return with_vocabulary(trained, config, vocabulary, rows)


def make_vocabulary(
    request: WordRequest,
    class_names: Sequence[str],
    unused: Sequence[int] = (),
    categories: Iterable[Category] = (),
    example_names: Sequence[str] = (),
) -> Vocabulary:
    """The request, matched to a model's classes.

    unused: columns that are no class. example_names: the classes of `request.examples`.
    """
    categories, select_by = list(categories), request.select_by or "names"
    if request.names is not None and request.add_names is not None:
        raise UserError("names replace the model's classes, add_names extend them: give one of them")
    used = [i for i in range(len(class_names)) if i not in set(unused)]
    own = [class_names[i] for i in used]
    if request.names is not None:
        words = read_words(request.names, "names")
        found = [used[i] if i >= 0 else -1 for i in match_words(words, own, categories)]
        return Vocabulary(words, tuple(found), extends=False, select_by=select_by)
    words = read_words(request.add_names, "add_names") if request.add_names is not None else ()
    for word, i in zip(words, match_words(words, own, categories), strict=True):
        if i >= 0:
            raise UserError(
                f"add_names: {word!r} means {own[i]!r}, a class of the model already: leave it out"
            )
    # Classes of the examples that are neither trained nor asked for by another name.
    known = match_words(example_names, [*own, *words], categories)
    words += tuple(name for name, i in zip(example_names, known, strict=True) if i < 0)
    columns = (*range(len(class_names)), *(-1 for _ in words))
    return Vocabulary((*class_names, *words), columns, extends=True, select_by=select_by)


def names_in(categories: Sequence[Category], words: Sequence[str]) -> tuple[str, ...]:
    """The words as the annotations of an evaluation call them; words that they lack stay as they are.

    Raises UserError for a class of the annotations that no word means.
    """
    found = match_words(words, [c.name for c in categories], categories)
    if missing := sorted(set(range(len(categories))) - set(found)):
        raise UserError(
            f"no word means class {categories[missing[0]].name!r} of the annotations ({len(missing)} such); "
            "add it, or use --add_names, which keeps the model's classes"
        )
    return tuple(categories[i].name if i >= 0 else word for word, i in zip(words, found, strict=True))
