"""Matches -> average precision and recall of every class, as `lvis` and `pycocotools` compute them.

T = 10 overlap thresholds, R = 101 recall levels, K categories, A = 4 area ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.evaluation.ground_truth import AREA_RANGES, IOU_THRESHOLDS
from datasets.evaluation.grouping import rank_within_group
from datasets.evaluation.matching import Matches, outcome

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class PerClassAP:
    """Of every category; NaN for one without a box to be found in that area range.

    precision: (A, T, K) float64, the mean over the recall levels (AP).
    recall:    (A, T, K) float64, of all detections that count.
    """

    precision: np.ndarray
    recall: np.ndarray

    @property
    def ap(self) -> np.ndarray:
        """(K,) AP over all thresholds, boxes of any size."""
        return self.precision[0].mean(0)


def class_scores(matches: Matches) -> PerClassAP:
    """Precision is interpolated (the best at this recall or more) and read at R recall levels."""
    areas, categories = matches.boxes.shape
    precision, recall = np.full((2, len(AREA_RANGES), len(IOU_THRESHOLDS), categories), np.nan)
    category = matches.category[matches.found]
    first = np.searchsorted(matches.category, np.arange(categories))
    starts = np.searchsorted(category, np.arange(categories + 1))
    for area in range(areas):
        boxes = matches.boxes[area]
        present = boxes > 0
        needed = _true_needed(boxes[present])
        counts_as_false = ~matches.ignore_unmatched[:, area]
        # False detections up to and including each row, within its category, were none of them matched.
        false = np.concatenate(([0], np.cumsum(counts_as_false)))
        unmatched = false[matches.found + 1] - false[first[category]]
        counts_as_false = counts_as_false[matches.found]
        for threshold in range(len(IOU_THRESHOLDS)):
            matched = outcome(matches.matched, area, threshold)
            ignored = outcome(matches.ignored, area, threshold)
            not_false = np.concatenate(([0], np.cumsum(counts_as_false & (matched | ignored))))
            true = np.flatnonzero(matched & ~ignored)
            group = category[true]
            false_before = unmatched[true] - (not_false[true + 1] - not_false[starts[group]])
            hits = rank_within_group(group) + 1
            envelope = _best_to_the_right(hits / (false_before + hits + np.spacing(1)), group)
            totals = np.bincount(group, minlength=categories)
            begin = np.cumsum(totals) - totals
            recall[area, threshold, present] = totals[present] / boxes[present]
            precision[area, threshold, present] = _at_levels(
                envelope, begin[present], totals[present], needed
            ).mean(1)
    return PerClassAP(precision, recall)


def mean_or_minus_one(values: np.ndarray) -> float:
    """The mean over what is defined (not NaN), -1 where nothing is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else -1.0


def _true_needed(boxes: np.ndarray) -> np.ndarray:
    """(k, R) int64: the fewest true detections n with n / boxes >= level, by the same division as lvis's."""
    needed = np.ceil(boxes[:, None] * RECALL_LEVELS).astype(np.int64)
    # The product may round to either side of the quotient that is compared.
    needed -= (needed - 1) / boxes[:, None] >= RECALL_LEVELS
    return needed + (needed / boxes[:, None] < RECALL_LEVELS)


def _at_levels(
    envelope: np.ndarray, starts: np.ndarray, totals: np.ndarray, needed: np.ndarray
) -> np.ndarray:
    """(k, R) envelope at the detection that reaches each recall level, 0 where none does."""
    # Level 0 is reached before the first true detection; the envelope there is that of the first.
    rank = np.maximum(needed, 1)
    reached = rank <= totals[:, None]
    position = np.where(reached, starts[:, None] + rank - 1, 0)
    return np.where(reached, envelope[position], 0.0) if len(envelope) else np.zeros(needed.shape)


def _best_to_the_right(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The largest value at or after each place within its run of `group` (ascending)."""
    # Complex numbers are compared by their real parts first, so from right to left each group starts afresh.
    pairs = np.empty(len(values), dtype=np.complex128)
    pairs.real, pairs.imag = -group[::-1].astype(np.float64), values[::-1]
    return np.maximum.accumulate(pairs).imag[::-1]
