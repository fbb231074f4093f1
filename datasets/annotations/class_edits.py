"""Class lists by config: classes merged, renamed, or left out, in the tables right after they are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datasets.annotations.categories import Category, renamed
from datasets.annotations.relabel import relabelled
from datasets.annotations.table import AnnotationTable, with_image_counts
from datasets.columns import Ragged, offsets_of
from util.errors import UserError, nearest


@dataclass(frozen=True)
class ClassEdits:
    """What the config does to the class list, in this order.

    merge:   new class -> the classes that become it.
    rename:  old name -> new name.
    classes: the names to keep, of those that there are then; empty: all.
    """

    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def check_sources(self, names: Collection[str], trained: Collection[str] = ()) -> None:
        """Raises UserError for a class to merge or rename that there is not, and for merges that overlap.

        names: of the classes as read, of all sets.
        trained: of the model that is evaluated, whose training data may have had classes that are not here.
        """
        seen: dict[str, str] = {}
        for new, parts in self.merge.items():
            if not parts:
                raise UserError(f"merge: {new!r} has no classes to be made of")
            for part in parts:
                if seen.setdefault(part, new) != new:
                    raise UserError(f"merge: {part!r} is a part of {seen[part]!r} and of {new!r}")
                if part not in names and new not in trained:
                    raise UserError(f"merge: the data has no class {part!r}.{nearest(part, names)}")
            if new in names and new not in parts:
                raise UserError(
                    f"merge: {new!r} is already a class of the data: list it among its own parts, or choose "
                    "another name"
                )
        after = {seen.get(name, name) for name in names}
        for old, new in self.rename.items():
            if old not in after and new not in trained:
                merged = f" ({old!r} is merged into {seen[old]!r})" if old in seen else ""
                raise UserError(f"rename: the data has no class {old!r}{merged}.{nearest(old, after)}")

    def check_kept(self, names: Collection[str], trained: Collection[str] = ()) -> None:
        """Raises UserError for a class to keep that there is not. names: after merging and renaming."""
        for name in self.classes:
            if name not in names and name not in trained:
                gone = next(
                    (f"; it is now {new!r}" for old, new in self.new_names().items() if old == name), ""
                )
                raise UserError(f"classes: the data has no class {name!r}{gone}.{nearest(name, names)}")

    def new_names(self) -> dict[str, str]:
        """Old name -> what it becomes, for the classes that are merged or renamed."""
        merged = {part: new for new, parts in self.merge.items() for part in parts}
        names = {old: self.rename.get(new, new) for old, new in merged.items()}
        return {old: new for old, new in self.rename.items() if old not in self.merge} | names


def edited(table: AnnotationTable, edits: ClassEdits) -> AnnotationTable:
    """The table after `merge` and `rename`. Parts of a merged class that the table lacks do not matter.

    A merged class takes the id of its first part. In an image it is verified absent, or judged, where all of
    its parts are. It is not exhaustively annotated where one of them is not, or where one is shown and
    another was not looked for. Raises UserError for two classes that get one name.
    """
    for new, parts in edits.merge.items():
        index_of = {c.name: index for index, c in enumerate(table.categories)}
        if present := [index_of[part] for part in parts if part in index_of]:
            table = _merged(table, new, present)
    categories = [renamed(c, edits.rename.get(c.name, c.name)) for c in table.categories]
    _forbid_equal_names(table, [c.name for c in categories])
    return replace(table, categories=tuple(categories))


def as_asked(table: AnnotationTable, edits: ClassEdits) -> AnnotationTable:
    """A single set's table after all edits. Raises UserError as `edited` and `kept` do."""
    table = edited(table, edits)
    return kept(table, edits.classes) if edits.classes else table


def kept(table: AnnotationTable, names: Collection[str]) -> AnnotationTable:
    """The table with these of its classes: boxes of others are dropped, and lists no longer name them.

    Raises UserError where none is left.
    """
    stays = np.array([c.name in names for c in table.categories], bool)
    if not stays.any():
        raise UserError(f"{table.name}: has none of the classes to keep ({', '.join(sorted(names)):.80})")
    if stays.all():
        return table
    target = np.where(stays, np.cumsum(stays) - 1, -1)
    return relabelled(table, [c for c, stay in zip(table.categories, stays, strict=True) if stay], target)


def _forbid_equal_names(table: AnnotationTable, new_names: Sequence[str]) -> None:
    old_of: dict[str, str] = {}
    for category, new in zip(table.categories, new_names, strict=True):
        other = old_of.setdefault(new, category.name)
        if other != category.name:
            raise UserError(
                f"rename: {other!r} and {category.name!r} of {table.name} would both be {new!r}: write "
                f"merge={{{new!r}: [{other!r}, {category.name!r}]}}"
            )


def _merged(table: AnnotationTable, name: str, parts: Sequence[int]) -> AnnotationTable:
    """parts: indices of categories, the one that gives its id first."""
    old = [table.categories[part] for part in parts]
    if len(parts) == 1:
        categories = list(table.categories)
        categories[parts[0]] = renamed(old[0], name)
        return replace(table, categories=tuple(categories))
    stays = np.ones(len(table.categories), bool)
    stays[list(parts[1:])] = False
    target = np.cumsum(stays) - 1
    target[list(parts)] = target[parts[0]]
    synsets = {c.synset for c in old}
    words = (word for c in old for word in (c.name, *c.synonyms, c.synset))
    merged = Category(
        id=old[0].id,
        name=name,
        synset=old[0].synset if len(synsets) == 1 else "",
        synonyms=_distinct(word for word in words if word not in ("", name)),
    )
    categories = [merged if i == parts[0] else table.categories[i] for i in np.flatnonzero(stays)]
    table = relabelled(_agreed(table, parts), categories, target)
    counted = with_image_counts(table.categories, table.category_index, table.image_index)
    return replace(table, categories=counted)


def _agreed(table: AnnotationTable, parts: Sequence[int]) -> AnnotationTable:
    """The table where its lists name either all of the parts or none, or of `not_exhaustive` any."""
    if not table.federated:
        return table
    absent, judged = (_with_each(lists, parts) for lists in (table.negatives, table.judged))
    known, any_shown = np.ones(len(table), bool), np.zeros(len(table), bool)
    for part in parts:
        shown = np.zeros(len(table), bool)
        shown[table.image_index[table.category_index == part]] = True
        in_list = np.append(_with_each(table.judged, [part]), False)[table.judged_list]
        known &= shown | _with_each(table.negatives, [part]) | in_list
        any_shown |= shown
    partly = np.flatnonzero(any_shown & ~known)
    rows = np.concatenate((table.not_exhaustive.row_of_value, partly))
    values = np.concatenate((table.not_exhaustive.values, np.full(len(partly), parts[0], np.int32)))
    return replace(
        table,
        negatives=_all_or_none(table.negatives, parts, absent),
        judged=_all_or_none(table.judged, parts, judged),
        not_exhaustive=Ragged.from_rows(rows, values, len(table)),
    )


def _with_each(lists: Ragged, parts: Sequence[int]) -> np.ndarray:
    """(rows,) bool: the list names every one of the parts."""
    found = np.ones(len(lists), bool)
    for part in parts:
        named = np.zeros(len(lists), bool)
        named[lists.row_of_value[lists.values == part]] = True
        found &= named
    return found


def _all_or_none(lists: Ragged, parts: Sequence[int], complete: np.ndarray) -> Ragged:
    rows = lists.row_of_value
    keep = ~np.isin(lists.values, parts) | complete[rows]
    return Ragged(lists.values[keep], offsets_of(np.bincount(rows[keep], minlength=len(lists))))


def _distinct(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
