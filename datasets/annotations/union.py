"""Tables of several data sets as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.class_union import ClassUnion
from datasets.annotations.relabel import relabelled
from datasets.annotations.table import AnnotationTable
from datasets.columns import PackedStrings, Ragged, offsets_of


@dataclass(frozen=True)
class NamedTable:
    """name: of the set, without `/`."""

    name: str
    table: AnnotationTable


@dataclass(frozen=True)
class Part:
    """One set in a union.

    table:       its own, with its own ids.
    images:      its images' rows of the union, in the same order.
    class_index: (K,) int32: the union's index of each of its classes.
    """

    name: str
    table: AnnotationTable
    images: slice
    class_index: np.ndarray

    def as_in_training(self, union: Sequence[Category]) -> Part:
        """The part with the training images of the union, and its frequencies where there are none.

        union: the categories of the union.
        """
        categories = []
        for own, index in zip(self.table.categories, self.class_index, strict=True):
            known = union[index]
            group = own.frequency or known.frequency
            categories.append(replace(own, frequency=group, image_count=known.image_count))
        return replace(self, table=replace(self.table, categories=tuple(categories)))


@dataclass(frozen=True)
class Union:
    """table: image ids are 1, 2, ... in the order of the sets; file names begin with the set's and `/`."""

    table: AnnotationTable
    parts: tuple[Part, ...]


def unite(tables: Sequence[NamedTable], classes: ClassUnion) -> Union:
    """One table over the classes of all sets.

    An image of a set that is exhaustively annotated gets the set's classes as its judged list: of other
    classes nothing is known there. If all sets have all classes, there is nothing to state.
    """
    ends = list(accumulate(len(named.table) for named in tables))
    parts = tuple(
        Part(n.name, n.table, slice(end - len(n.table), end), classes.index(n.name, n.table.categories))
        for n, end in zip(tables, ends, strict=True)
    )
    complete = all(not p.table.federated and len(p.class_index) == len(classes.categories) for p in parts)
    own = [_as_part(part, classes.categories, complete) for part in parts]
    lengths = np.concatenate([np.diff(table.box_offsets) for table in own])
    numbers = np.cumsum([0, *(len(table.judged) for table in own)])
    judged_list = [
        np.where(t.judged_list < 0, -1, t.judged_list + n) for t, n in zip(own, numbers, strict=False)
    ]
    judged, number = _joined([table.judged for table in own]).distinct()
    judged_list = np.append(number, -1)[np.concatenate(judged_list)]
    names = [f"{part.name}/{part.table.file_names[i]}" for part in parts for i in range(len(part.table))]

    def column(of: Callable[[AnnotationTable], np.ndarray]) -> np.ndarray:
        return np.concatenate([of(table) for table in own])

    table = AnnotationTable(
        name=" + ".join(part.name for part in parts),
        categories=classes.categories,
        image_ids=np.arange(1, ends[-1] + 1),
        sizes=column(lambda t: t.sizes),
        file_names=PackedStrings.pack(names),
        box_offsets=offsets_of(lengths),
        boxes_xywh=column(lambda t: t.boxes_xywh),
        areas=column(lambda t: t.areas),
        category_index=column(lambda t: t.category_index),
        annotation_ids=column(lambda t: t.annotation_ids),
        ignore=column(lambda t: t.ignore),
        crowd=column(lambda t: t.crowd),
        negatives=_joined([t.negatives for t in own]),
        not_exhaustive=_joined([t.not_exhaustive for t in own]),
        positives=_joined([t.positives for t in own]),
        judged=judged,
        judged_list=judged_list.astype(np.int32),
        federated=not complete,
    )
    return Union(table, parts)


def _as_part(part: Part, categories: Sequence[Category], complete: bool) -> AnnotationTable:
    """The set's table with the classes of the union, and with its judged list where it has to be stated."""
    table = relabelled(part.table, categories, part.class_index)
    if complete or part.table.federated:
        return table
    return table.with_judged(part.class_index)


def _joined(lists: Sequence[Ragged]) -> Ragged:
    return Ragged(
        np.concatenate([part.values for part in lists]),
        offsets_of(np.concatenate([part.lengths for part in lists])),
    )
