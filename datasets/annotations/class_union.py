"""The classes of several data sets as one list: united by name, synset or synonym."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datasets.annotations.categories import Category, plain_name, renamed
from datasets.annotations.category_matching import match_categories
from util.logging import get_logger

# How a class of a set came to its class of the union, best first. NEW: no earlier set has it.
NEW, NAME, SYNSET, SYNONYM = "", "name", "synset", "synonym"
_BEST_FIRST = (NAME, SYNSET, SYNONYM)
# Own name -> name in the union, by the name of the set.
ClassNames = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class ClassUnion:
    """categories: of the union, ascending id; those of the first set keep their ids.
    members: by set: (own category, name in the union, how it came to it: NEW, NAME, SYNSET or SYNONYM).
    """

    categories: tuple[Category, ...]
    members: Mapping[str, tuple[tuple[Category, str, str], ...]]

    @property
    def class_names(self) -> dict[str, dict[str, str]]:
        """Own name -> name in the union, by set."""
        return {name: {c.name: new for c, new, _ in members} for name, members in self.members.items()}

    def index(self, name: str, own: Sequence[Category]) -> np.ndarray:
        """(len(own),) int32: the index in `categories` of classes of the set `name`."""
        place = {c.name: index for index, c in enumerate(self.categories)}
        names = self.class_names[name]
        return np.array([place[names[c.name]] for c in own], np.int32)

    def only(self, names: Collection[str]) -> ClassUnion:
        """The union without other classes than these."""
        members = {name: tuple(m for m in found if m[1] in names) for name, found in self.members.items()}
        return ClassUnion(tuple(c for c in self.categories if c.name in names), members)


def unite_classes(sets: Mapping[str, Sequence[Category]], known: ClassNames | None = None) -> ClassUnion:
    """Goes through the sets in order and matches the classes of each with those of the sets before it.

    known: what training found, for the evaluation of its checkpoint; it decides wherever it names a class.
    A class that may mean several classes of the union, or that another of its set fits better, stays one of
    its own, with a warning.
    """
    union = _Union()
    for name, own in sets.items():
        union.add(name, own, (known or {}).get(name, {}))
    return union.finished()


@dataclass
class _Union:
    """The list while sets are added."""

    classes: list[Category] = field(default_factory=list)
    members: dict[str, list[tuple[Category, int, str]]] = field(default_factory=dict)

    def add(self, name: str, own: Sequence[Category], known: Mapping[str, str]) -> None:
        place_of = {c.name: index for index, c in enumerate(self.classes)}
        given = {row: known[c.name] for row, c in enumerate(own) if c.name in known}
        target = {row: place_of[new] for row, new in given.items() if new in place_of}
        asked = [row for row in range(len(own)) if row not in given]
        target |= self._matched(name, own, asked, set(target.values()))
        self.members[name] = []
        for row, category in enumerate(own):
            how, index = NEW, target.get(row, len(self.classes))
            if row in target:
                how = _how(category, self.classes[index])
                self.classes[index] = _united(self.classes[index], category)
            else:
                self.classes.append(renamed(category, given.get(row, category.name)))
            self.members[name].append((category, index, how))

    def _matched(
        self, name: str, own: Sequence[Category], asked: Sequence[int], taken: set[int]
    ) -> dict[int, int]:
        """Row of `own` -> index of the union, each at most once."""
        # Ids of the union are not final yet: places stand in for them.
        union = [replace(c, id=index) for index, c in enumerate(self.classes)]
        rows = [replace(own[row], id=row) for row in asked]
        matches = match_categories(rows, union)
        for row, may_be in matches.ambiguous.items():
            get_logger().warning(
                "class %r of %s may mean %s: it stays a class of its own (rename or merge says which)",
                own[row].name, name, " or ".join(map(repr, may_be)),
            )  # fmt: skip
        claims: dict[int, list[tuple[int, int]]] = {}
        for row, index in matches.target_of.items():
            claims.setdefault(index, []).append((_BEST_FIRST.index(_how(own[row], union[index])), row))
        target = {}
        for index, rivals in claims.items():
            best = min(rivals)
            if index not in taken and [rank for rank, _ in rivals].count(best[0]) == 1:
                target[best[1]] = index
            left = [own[row].name for _, row in rivals if target.get(row) != index]
            if left:
                get_logger().warning(
                    "classes %s of %s mean %r too, and stay classes of their own (merge makes them one)",
                    ", ".join(map(repr, left)), name, union[index].name,
                )  # fmt: skip
        return target

    def finished(self) -> ClassUnion:
        """Gives ids: those of the first set, then the next free numbers."""
        names = [c.name for c in self.classes]
        first = len(next(iter(self.members.values()), ()))
        classes = sorted(self.classes[:first], key=lambda c: c.id)
        free = max((c.id for c in classes), default=0) + 1
        classes += [replace(c, id=free + number) for number, c in enumerate(self.classes[first:])]
        members = {
            name: tuple((category, names[index], how) for category, index, how in found)
            for name, found in self.members.items()
        }
        return ClassUnion(tuple(classes), members)


def _how(category: Category, other: Category) -> str:
    if plain_name(category.name) == plain_name(other.name):
        return NAME
    same_synset = category.synset and category.synset == other.synset
    return SYNSET if same_synset or other.synset == category.name else SYNONYM


def _united(category: Category, other: Category) -> Category:
    """A class of the union with another set's. Their frequencies are those of one set each: counts decide."""
    if category.synset and other.synset and category.synset != other.synset:
        get_logger().warning(
            "class %r is %r in one set and %r in another, and becomes one class: give it another name in one",
            category.name, category.synset, other.synset,
        )  # fmt: skip
    words = (w for w in (*category.synonyms, other.name, *other.synonyms) if w != category.name)
    return replace(
        category,
        synset=category.synset or other.synset,
        synonyms=tuple(dict.fromkeys(words)),
        frequency="",
        image_count=(category.image_count or 0) + (other.image_count or 0),
    )
