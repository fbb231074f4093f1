"""Annotated boxes grouped by (image, category), with the rules of LVIS or COCO applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.columns import Ragged
from datasets.evaluation.grouping import index_of, run_starts, sorted_unique

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# all, small, medium, large: pixels squared, both ends inclusive.
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])


@dataclass(frozen=True)
class GroundTruth:
    """G boxes sorted by key = image_index * K + category_index, then by file order. A = 4 area ranges.

    rows:           (G,) int64: the boxes' rows of the annotations.
    boxes_xywh:     (G, 4) float64 pixels.
    category_index: (G,) int64 0..K-1.
    ignored:        (G, A) bool: neither missed when unmatched nor counted when matched.
    crowd:          (G,) bool: may be matched by any number of detections.
    keys:           (U,) int64 ascending: the (image, category) pairs that are evaluated, but for those
                    without a box that `exhaustive` and `judged` tell of.
    first, count:   (U + 1,) int64: the boxes of each key; the last entry, empty, serves all other keys.
    not_exhaustive: (U + 1,) bool: not every instance is annotated, so unmatched detections are ignored.
    exhaustive:     all other pairs are evaluated too, as pairs without a box.
    judged:         (L + 1, K) bool: the classes of each judged list, none in the last row.
    judged_list:    (I,) int32: the row of each image, -1 for the last. Its classes are evaluated there:
                    keys would be one for each image and class of an exhaustive set.
    """

    rows: np.ndarray
    boxes_xywh: np.ndarray
    category_index: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    keys: np.ndarray
    first: np.ndarray
    count: np.ndarray
    not_exhaustive: np.ndarray
    exhaustive: bool
    judged: np.ndarray
    judged_list: np.ndarray

    def is_judged(self, image_index: np.ndarray, category_index: np.ndarray) -> np.ndarray:
        """(n,) bool: the judged lists name the pair."""
        return self.judged[self.judged_list[image_index], category_index]

    def key_index(self, keys: np.ndarray) -> np.ndarray:
        """(n,) int64: the index 0..U-1 of each of n keys, -1 where it is absent."""
        if not len(keys):
            return np.zeros(0, dtype=np.int64)
        begin, end = np.searchsorted(self.keys, (keys.min(), keys.max() + 1))
        index = index_of(self.keys[begin:end], keys)
        return np.where(index < 0, -1, index + begin)


def lvis_ground_truth(annotations: AnnotationTable) -> GroundTruth:
    """The rules of `lvis`: a category is evaluated on images where it is annotated or verified absent.

    A judged list (`AnnotationTable.judged`), which is ours, verifies its classes; as in COCO, crowd boxes of
    such an image are ignored. If no image lists anything, every category is evaluated on every image.
    """
    # lvis drops annotations without a positive area.
    rows = np.flatnonzero((annotations.areas > 0) & np.isfinite(annotations.areas))
    ignore = annotations.ignore[rows]
    as_coco = np.full(len(annotations), not annotations.federated) | (annotations.judged_list >= 0)
    ignore = ignore | (annotations.crowd[rows] & as_coco[annotations.image_index[rows]])
    no_crowd = np.zeros(len(rows), dtype=bool)
    return _group_by_key(annotations, rows, ignore, no_crowd, exhaustive=not annotations.federated)


def coco_ground_truth(annotations: AnnotationTable) -> GroundTruth:
    """The rules of `pycocotools`: every category is evaluated on every image."""
    rows = np.arange(len(annotations.areas))
    return _group_by_key(annotations, rows, annotations.crowd, annotations.crowd, exhaustive=True)


def outside_area_ranges(areas: np.ndarray) -> np.ndarray:
    """(n,) pixels squared -> (n, A) bool."""
    return (areas[:, None] < AREA_RANGES[:, 0]) | (areas[:, None] > AREA_RANGES[:, 1])


def _group_by_key(
    annotations: AnnotationTable, rows: np.ndarray, ignore: np.ndarray, crowd: np.ndarray, exhaustive: bool
) -> GroundTruth:
    num_categories = len(annotations.categories)
    key = annotations.image_index[rows] * num_categories + annotations.category_index[rows]
    order = np.argsort(key, kind="stable")
    rows, key = rows[order], key[order]
    starts = run_starts(key)
    lists = annotations.judged
    judged = np.zeros((len(lists) + 1, num_categories), bool)
    judged[lists.row_of_value, lists.values] = True
    not_exhaustive = _pair_keys(annotations.not_exhaustive, num_categories)
    image, category = np.divmod(not_exhaustive, num_categories)
    unsure = not_exhaustive[exhaustive | judged[annotations.judged_list[image], category]]
    absent = [] if exhaustive else [_pair_keys(annotations.negatives, num_categories)]
    keys = sorted_unique(np.concatenate((key[starts], unsure, *absent)))
    first, count = np.zeros((2, len(keys) + 1), dtype=np.int64)
    with_boxes = np.searchsorted(keys, key[starts])
    first[with_boxes], count[with_boxes] = starts, np.diff(np.append(starts, len(key)))
    return GroundTruth(
        rows=rows,
        boxes_xywh=annotations.boxes_xywh[rows],
        category_index=key % num_categories,
        ignored=ignore[order, None] | outside_area_ranges(annotations.areas[rows]),
        crowd=crowd[order],
        keys=keys,
        first=first,
        count=count,
        not_exhaustive=np.append(np.isin(keys, not_exhaustive), False),
        exhaustive=exhaustive,
        judged=judged,
        judged_list=annotations.judged_list,
    )


def _pair_keys(categories_of_image: Ragged, num_categories: int) -> np.ndarray:
    """Sorted unique keys of lists of category indices by image."""
    return sorted_unique(categories_of_image.row_of_value * num_categories + categories_of_image.values)
