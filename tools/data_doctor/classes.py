"""Checks of the classes: their names, which of them are one, which have boxes."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from datasets.annotations.categories import Category, plain_name
from datasets.annotations.category_matching import match_categories, nearest_class, squeezed
from datasets.annotations.frequency import group_of
from datasets.annotations.lvis_v1 import lvis_v1_classes
from datasets.annotations.source import RawAnnotations
from tools.data_doctor.findings import Finding, Severity, found, repeated

NOTE, WARNING, ERROR = Severity
# Shorter names that differ in one letter are mostly two words: goat and boat.
_SHORTEST = 8
_GROUPS = {"f": "frequent", "c": "common", "r": "rare"}


def check_classes(where: str, raw: RawAnnotations, *, training: bool) -> Iterator[Finding]:
    """The list of classes of one split, and in training the boxes of each."""
    if not raw.categories:
        yield Finding(ERROR, where, "no classes are listed", "`categories` must name them")
        return
    names = [c.name for c in raw.categories]
    yield from found(ERROR, where, "{n} class ids are listed more than once",
                     repeated([c.id for c in raw.categories]), "give every class a unique id")  # fmt: skip
    yield from found(ERROR, where, "{n} class names are listed more than once", repeated(names),
                     "names identify classes: rename or merge them")  # fmt: skip
    if training:
        yield from _alike(where, raw.categories)
        if len(raw.annotation_ids):
            yield from _tail(where, raw)


def check_classes_of_both(where: str, train: RawAnnotations, val: RawAnnotations) -> Iterator[Finding]:
    """Classes that only one split has. where: the name of the validation split."""
    names = [{c.name for c in raw.categories} for raw in (train, val)]
    unknown = [f"{n}{_nearest(n, train.categories)}" for n in sorted(names[1] - names[0])]
    yield from found(ERROR, where, "{n} classes are not among those of training", unknown,
                     "give both files the same `categories`")  # fmt: skip
    shown = set(val.box_category_ids.tolist())
    unseen = [c.name for c in val.categories if c.id not in shown]
    yield from found(NOTE, where, "{n} classes have no box: their AP is undefined and does not count",
                     unseen if shown else [], "")  # fmt: skip


def image_counts(raw: RawAnnotations) -> dict[int, int]:
    """Category id -> images with a box of it."""
    pairs = np.unique(np.stack([raw.box_category_ids, raw.box_image_ids]), axis=1)
    ids, counts = np.unique(pairs[0], return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _nearest(name: str, categories: Sequence[Category]) -> str:
    other = nearest_class(name, categories)
    return f" (nearest: {other!r})" if other else ""


def _alike(where: str, categories: Sequence[Category]) -> Iterator[Finding]:
    """Classes that are probably one."""
    spelt, words = defaultdict(set), defaultdict(set)
    for name in sorted({c.name for c in categories}):
        spelt[plain_name(name)].add(name)
    for name in spelt:
        words[_singular(squeezed(name))].add(name)
    merge = "merge them if they mean the same; folders cannot tell them apart"
    yield from found(WARNING, where, "{n} class names differ only in case, underscores or spaces",
                     _listed(spelt.values()), merge)  # fmt: skip
    shown = {name: min(spelt[name]) for name in spelt}
    number = [sorted(shown[name] for name in group) for group in words.values()]
    meant = _listed(number) + [" and ".join(map(repr, pair)) for pair in _synonyms(categories)]
    yield from found(WARNING, where, "{n} classes are probably one: plural, punctuation or synonym", meant,
                     "merge them if they mean the same: a detector cannot tell them apart")  # fmt: skip
    typing = [f"{shown[a]!r} and {shown[b]!r}" for a, b in _one_letter_apart(sorted(words))
              if a in shown and b in shown]  # fmt: skip
    yield from found(NOTE, where, "{n} pairs of class names differ in one letter", typing,
                     "is one of each a misspelling?")  # fmt: skip


def _listed(groups: Iterable[Collection[str]]) -> list[str]:
    return [" and ".join(map(repr, sorted(group))) for group in groups if len(group) > 1]


def _singular(word: str) -> str:
    """An English noun in the singular, well enough to compare it with another."""
    for ending, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("sses", "ss")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word.removesuffix("s") if len(word) > 3 and not word.endswith(("ss", "us", "is")) else word


def _synonyms(categories: Sequence[Category]) -> Iterator[tuple[str, ...]]:
    """Names of classes that mean the same class of LVIS, by its synonyms or their own synset."""
    same = defaultdict(set)
    lvis = [Category(c.id, c.name, c.synset, c.synonyms) for c in lvis_v1_classes()]
    unique = {c.id: Category(number, c.name, c.synset) for number, c in enumerate(categories)}
    matches = match_categories(list(unique.values()), lvis)
    for category in unique.values():
        if (target := matches.target_of.get(category.id)) is not None:
            same[target].add(category.name)
    for names in same.values():
        plain = {_singular(squeezed(name)) for name in names}
        if len(plain) > 1:
            yield tuple(sorted(names))


def _one_letter_apart(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of longer words, one letter of which is another, missing or exchanged with its neighbour."""
    likely = defaultdict(set)
    for word in (w for w in words if len(w) >= _SHORTEST):
        middle = len(word) // 2
        # One edit leaves a half as it is.
        for key in {(0, word[:middle]), (0, word[: middle + 1]), (1, word[middle:]), (1, word[middle + 1 :])}:
            likely[key].add(word)
    pairs = {pair for group in likely.values() for pair in combinations(sorted(group), 2)}
    for a, b in sorted(pairs):
        if _differ_by_one(a, b):
            yield a, b


def _differ_by_one(a: str, b: str) -> bool:
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    one, other = a[start:], b[start:]
    if any(rest[:1].isdigit() for rest in (one, other)):
        return False
    exchanged = one[:2] == other[1::-1] and one[2:] == other[2:]
    return one[1:] == other[1:] or one[1:] == other or one == other[1:] or (len(one) > 1 and exchanged)


def _tail(where: str, raw: RawAnnotations) -> Iterator[Finding]:
    """Classes without boxes, and how the others are distributed."""
    counts = image_counts(raw)
    without = [c.name for c in raw.categories if not counts.get(c.id)]
    yield from found(WARNING, where, "{n} classes have no box", without,
                     "annotate some; until then only labelled images teach them")  # fmt: skip
    shown = sorted((counts[c.id], c.name, c) for c in raw.categories if counts.get(c.id))
    if not shown:
        return
    groups = [group_of(c.frequency, count) for count, _, c in shown]
    parts = [f"{groups.count(g)} {word}" for g, word in _GROUPS.items() if g in groups]
    (fewest, _, _), (middle, _, _), (most, _, _) = shown[0], shown[len(shown) // 2], shown[-1]
    yield Finding(
        NOTE, where,
        f"classes with boxes: {len(shown):,} ({', '.join(parts)}), in {fewest:,} to {most:,} images each "
        f"(median {middle:,}); the rarest:", "", [f"{name} {count:,}" for count, name, _ in shown],
    )  # fmt: skip
