"""Matches the classes of one list to those of another: by name, synset or synonym, whatever the spelling."""

from __future__ import annotations

import difflib
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from datasets.annotations.categories import Category, plain_name


@dataclass(frozen=True)
class Matches:
    """target_of:  source category id -> target category id.
    ambiguous:  source category id -> names of the target classes that it may mean; these are not matched.
    unmatched:  ids of source categories without a match.
    """

    target_of: dict[int, int] = field(default_factory=dict)
    ambiguous: dict[int, tuple[str, ...]] = field(default_factory=dict)
    unmatched: tuple[int, ...] = ()


def match_categories(source: Sequence[Category], target: Sequence[Category]) -> Matches:
    """Matches every source category to at most one target category.

    The first of these that finds a class decides: the exact name; the name without case, underscores,
    hyphens and spaces; the synset; a synonym; name and synonyms without any punctuation (`HotDog` is
    `hot_dog`). If it finds several classes, the later ones may narrow them down; else the category is
    ambiguous.
    """
    steps = _lookups(target)
    name_of = {c.id: c.name for c in target}
    target_of, ambiguous, unmatched = {}, {}, []
    for category in source:
        found: set[int] = set()
        for step, key in _questions(category, steps):
            answer = step.get(key, set())
            found = (found & answer) or found or answer
            if len(found) == 1:
                break
        if len(found) == 1:
            target_of[category.id] = next(iter(found))
        elif found:
            ambiguous[category.id] = tuple(name_of[i] for i in sorted(found))
        else:
            unmatched.append(category.id)
    return Matches(target_of, ambiguous, tuple(unmatched))


def nearest_class(name: str, target: Sequence[Category]) -> str:
    """The class whose name or synonym is most similar to `name`, '' if none is similar."""
    words = {plain_name(s): c.name for c in target for s in (c.name, *c.synonyms)}
    asked = _pairs_of_letters(plain_name(name))
    # difflib takes seconds for all words of LVIS: it only gets those that share the most letter pairs.
    likely = heapq.nlargest(8, words, key=lambda word: _share(asked, _pairs_of_letters(word)))
    found = difflib.get_close_matches(plain_name(name), likely, n=1, cutoff=0.6)
    return words[found[0]] if found else ""


def _pairs_of_letters(word: str) -> set[str]:
    return {word[i : i + 2] for i in range(len(word) - 1)}


def _share(a: set[str], b: set[str]) -> float:
    return len(a & b) / (len(a) + len(b) or 1)


def squeezed(name: str) -> str:
    """Letters and digits only, without case."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _lookups(target: Sequence[Category]) -> dict[str, dict[str, set[int]]]:
    words = [(s, c.id) for c in target for s in {c.name, *c.synonyms}]
    return {
        "name": _lookup((c.name, c.id) for c in target),
        "plain name": _lookup((plain_name(c.name), c.id) for c in target),
        "synset": _lookup((c.synset, c.id) for c in target),
        "synonym": _lookup((plain_name(s), i) for s, i in words),
        "letters": _lookup((squeezed(s), i) for s, i in words),
    }


def _questions(
    category: Category, steps: dict[str, dict[str, set[int]]]
) -> Iterable[tuple[dict[str, set[int]], str]]:
    """(lookup, key), most specific first."""
    words = list(dict.fromkeys((category.name, *category.synonyms)))
    yield steps["name"], category.name
    yield steps["plain name"], plain_name(category.name)
    yield steps["synset"], category.synset
    yield steps["synset"], category.name
    for word in words:
        yield steps["synonym"], plain_name(word)
    for word in words:
        yield steps["letters"], squeezed(word)


def _lookup(pairs: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for key, identity in pairs:
        if key:
            found.setdefault(key, set()).add(identity)
    return found
