"""The words that a user asks a model for: read from a list or a file, and matched to its classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from datasets.annotations.categories import Category, plain_name
from datasets.annotations.category_matching import match_categories
from datasets.annotations.lvis_v1 import lvis_v1_classes
from util.errors import UserError
from util.text_files import read_lines

Words = str | Path | Sequence[str]

# Bytes of a file of words, how many there may be, and characters of one.
_LARGEST_FILE, _MOST_WORDS, _LONGEST_WORD = 2**24, 100_000, 300


def read_words(given: Words, flag: str = "names") -> tuple[str, ...]:
    """The words of a comma-separated list, a sequence, or a UTF-8 file, one a line, blank lines skipped.

    A string without a comma that names a file, or ends in .txt, is a file. flag: for messages.
    Raises UserError for an empty word, one that cannot be printed, an empty list, and a file that is missing,
    empty or not UTF-8.
    """
    if isinstance(given, Path) or (isinstance(given, str) and _names_file(given)):
        words = _lines_of(Path(given), flag)
    else:
        parts = given.split(",") if isinstance(given, str) else given
        words = [str(part).strip() for part in parts]
        if not any(words):
            raise UserError(f"{flag}: has no words")
        if "" in words:
            raise UserError(f"{flag}: word {words.index('') + 1} of {len(words)} is empty")
    if len(words) > _MOST_WORDS:
        raise UserError(f"{flag}: {len(words)} words, more than {_MOST_WORDS}")
    for number, word in enumerate(words, 1):
        if len(word) > _LONGEST_WORD or not word.isprintable():
            raise UserError(f"{flag}: word {number} of {len(words)} ({word[:40]!r}) is no word")
    return tuple(words)


def _names_file(text: str) -> bool:
    return "," not in text and (text.strip().lower().endswith(".txt") or os.path.isfile(text))


def _lines_of(path: Path, flag: str) -> list[str]:
    try:
        words = [line.strip() for line in read_lines(path, _LARGEST_FILE) if line.strip()]
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None
    if not words:
        raise UserError(f"{flag}: {path} is empty; write one word a line")
    return words


def match_words(
    words: Sequence[str], class_names: Sequence[str], categories: Iterable[Category] = ()
) -> tuple[int, ...]:
    """For every word the class that it names, an index into `class_names`, or -1 for a word of its own.

    A word names a class by its name in any spelling, or by a synonym: of LVIS, or of the entry of
    `categories` that has the class's name.
    Raises UserError for a word that may mean several classes, and for two words that mean one.
    """
    matches = match_categories(
        [Category(i, word) for i, word in enumerate(words)], with_synonyms(class_names, categories)
    )
    for index, meanings in matches.ambiguous.items():
        known = ", ".join(repr(name) for name in meanings)
        raise UserError(f"{words[index]!r} may mean {known}: use one of these names")
    columns = tuple(matches.target_of.get(i, -1) for i in range(len(words)))
    _forbid_twins(words, columns, class_names)
    return columns


def with_synonyms(class_names: Sequence[str], categories: Iterable[Category] = ()) -> list[Category]:
    """The classes as categories (id = index), with every synonym that is known of them."""
    given = {c.name: c for c in categories}
    classes = [replace(given.get(n, Category(i, n)), id=i) for i, n in enumerate(class_names)]
    lvis = _lvis_categories()
    entries = {c.id: c for c in lvis}
    same = match_categories(classes, lvis).target_of
    known = [entries[same[c.id]] if c.id in same else None for c in classes]
    return [
        replace(c, synonyms=(*c.synonyms, entry.name, *entry.synonyms)) if entry else c
        for c, entry in zip(classes, known, strict=True)
    ]


@cache
def _lvis_categories() -> tuple[Category, ...]:
    return tuple(Category(c.id, c.name, c.synset, c.synonyms) for c in lvis_v1_classes())


def _forbid_twins(words: Sequence[str], columns: Sequence[int], class_names: Sequence[str]) -> None:
    """No two words mean one class: a trained one, one of LVIS, or the same letters."""
    lvis = match_categories([Category(i, word) for i, word in enumerate(words)], _lvis_categories()).target_of
    seen: dict[tuple[str, int | str], str] = {}
    for i, (word, column) in enumerate(zip(words, columns, strict=True)):
        keys: list[tuple[str, int | str]] = [("word", plain_name(word))]
        keys += [("class", column)] if column >= 0 else [("LVIS", lvis[i])] if i in lvis else []
        for key in keys:
            other = seen.setdefault(key, word)
            if other is not word:
                meaning = f"class {class_names[column]!r}" if column >= 0 else "one class"
                raise UserError(f"{other!r} and {word!r} both mean {meaning}: leave one out")
