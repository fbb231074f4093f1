"""A table with other classes in place of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.table import AnnotationTable
from datasets.columns import Ragged, offsets_of


def relabelled(table: AnnotationTable, categories: Sequence[Category], target: np.ndarray) -> AnnotationTable:
    """The table with `categories`, K' of them in ascending order of their id.

    target: (K,) int: what becomes of each class, an index 0..K'-1; -1 drops its boxes, and it from all lists.
    Two classes may become one: a list that has either of them has the new one.
    """
    target = np.asarray(target, np.int32)
    labels = target[table.category_index]
    keep = labels >= 0
    per_box = ("boxes_xywh", "areas", "annotation_ids", "ignore", "crowd")
    judged, number = _ascending(_mapped(table.judged, target)).distinct()
    stated = table.judged_list >= 0
    return replace(
        table,
        categories=tuple(categories),
        category_index=labels[keep],
        box_offsets=offsets_of(np.bincount(table.image_index[keep], minlength=len(table))),
        judged=judged,
        judged_list=np.where(stated, np.append(number, -1)[table.judged_list], -1).astype(np.int32),
        negatives=_mapped(table.negatives, target),
        not_exhaustive=_mapped(table.not_exhaustive, target),
        positives=_mapped(table.positives, target),
        **{name: getattr(table, name)[keep] for name in per_box},
    )


def _mapped(lists: Ragged, target: np.ndarray) -> Ragged:
    """Lists of new classes in the order of the old ones, each class once in a list."""
    values, rows = target[lists.values], lists.row_of_value
    keep = values >= 0
    values, rows = values[keep], rows[keep]
    _, first = np.unique(rows * (int(target.max(initial=0)) + 1) + values, return_index=True)
    first.sort()
    return Ragged.from_rows(rows[first], values[first], len(lists))


def _ascending(lists: Ragged) -> Ragged:
    order = np.lexsort((lists.values, lists.row_of_value))
    return Ragged(lists.values[order], lists.offsets)
