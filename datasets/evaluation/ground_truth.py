"""Annotated boxes as LVIS and COCO evaluation see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.columns import Ragged
from datasets.evaluation.grouping import positions, run_starts

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# all, small, medium, large: pixels squared, both ends inclusive.
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])


@dataclass(frozen=True)
class GroundTruth:
    """G boxes in order of their key = image * K + category, then of the file. A = 4 area ranges.

    boxes_xywh: (G, 4) float64.
    category:   (G,) int64 0..K-1.
    ignored:    (G, A) bool: need not be found.
    crowd:      (G,) bool: stands for many; any number of detections may find it.
    matchable:  (G,) bool. The packages mark a match by the annotation's id, so that a box with id 0 is taken
                but its finder stays unmatched.
    keys:       (U,) int64 ascending: where detections are judged.
    first, count: (U + 1,) int64: the boxes of each key; the last entry, none, is for all other keys.
    not_exhaustive:   (U + 1,) bool: unmatched detections are not false, for not all boxes are annotated.
    everywhere: detections of other keys are judged too.
    """

    boxes_xywh: np.ndarray
    category: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    matchable: np.ndarray
    keys: np.ndarray
    first: np.ndarray
    count: np.ndarray
    not_exhaustive: np.ndarray
    everywhere: bool

    def groups(self, keys: np.ndarray) -> np.ndarray:
        """(n,) int64: the index 0..U-1 of each of n keys, -1 for one that is not listed."""
        if not len(keys):
            return np.zeros(0, dtype=np.int64)
        begin, end = np.searchsorted(self.keys, (keys.min(), keys.max() + 1))
        place = positions(self.keys[begin:end], keys)
        return np.where(place < 0, -1, place + begin)


def lvis_truth(annotations: AnnotationTable) -> GroundTruth:
    """By the rules of `lvis`: a class is judged on images where it is annotated or known to be absent.

    Where the annotations name no negatives at all, it is judged everywhere, and crowds need not be found.
    """
    # lvis leaves out annotations whose area is not positive.
    rows = np.flatnonzero((annotations.areas > 0) & np.isfinite(annotations.areas))
    ignore = annotations.ignore[rows]
    if not annotations.federated:
        ignore = ignore | annotations.crowd[rows]
    return _truth(annotations, rows, ignore, np.zeros(len(rows), dtype=bool), not annotations.federated)


def coco_truth(annotations: AnnotationTable) -> GroundTruth:
    """By the rules of `pycocotools`: every class is judged on every image."""
    rows = np.arange(len(annotations.areas))
    return _truth(annotations, rows, annotations.crowd, annotations.crowd, True)


def outside_ranges(areas: np.ndarray) -> np.ndarray:
    """(n, A) bool."""
    return (areas[:, None] < AREA_RANGES[:, 0]) | (areas[:, None] > AREA_RANGES[:, 1])


def _truth(
    annotations: AnnotationTable, rows: np.ndarray, ignore: np.ndarray, crowd: np.ndarray, everywhere: bool
) -> GroundTruth:
    categories = len(annotations.categories)
    key = annotations.image_index[rows] * categories + annotations.category_index[rows]
    order = np.argsort(key, kind="stable")
    rows, key = rows[order], key[order]
    starts = run_starts(key)
    not_exhaustive = _pair_keys(annotations.not_exhaustive, categories)
    listed = not_exhaustive if everywhere else _pair_keys(annotations.negatives, categories)
    keys = np.union1d(key[starts], listed)
    first, count = np.zeros((2, len(keys) + 1), dtype=np.int64)
    place = np.searchsorted(keys, key[starts])
    first[place], count[place] = starts, np.diff(np.append(starts, len(key)))
    return GroundTruth(
        boxes_xywh=annotations.boxes_xywh[rows],
        category=key % categories,
        ignored=ignore[order, None] | outside_ranges(annotations.areas[rows]),
        crowd=crowd[order],
        matchable=annotations.annotation_ids[rows] != 0,
        keys=keys,
        first=first,
        count=count,
        not_exhaustive=np.append(np.isin(keys, not_exhaustive), False),
        everywhere=everywhere,
    )


def _pair_keys(lists: Ragged, categories: int) -> np.ndarray:
    """Sorted keys of category lists by image."""
    return np.unique(lists.row_of_value * categories + lists.values)
