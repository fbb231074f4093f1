"""Matches -> average precision and recall per category, as `lvis` and `pycocotools` compute them.

A = 4 area ranges, T = 10 IoU thresholds, K categories, R = 101 recall levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.evaluation.ground_truth import IOU_THRESHOLDS
from datasets.evaluation.grouping import rank_within_group
from datasets.evaluation.matching import Matches, has_bit

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class PerClassAP:
    """0..1; NaN for a category without ground truth in that area range.

    ap:     (A, T, K) float64, mean interpolated precision over the recall levels.
    recall: (A, T, K) float64, of all detections that count.
    """

    ap: np.ndarray
    recall: np.ndarray


def per_class_ap(matches: Matches) -> PerClassAP:
    """Precision is interpolated (the best at this recall or higher) and read at the R recall levels."""
    num_areas, num_categories = matches.num_gt.shape
    ap, recall = np.full((2, num_areas, len(IOU_THRESHOLDS), num_categories), np.nan)
    category_index = matches.category_index[matches.hits]
    first = np.searchsorted(matches.category_index, np.arange(num_categories))
    first_hit = np.searchsorted(category_index, np.arange(num_categories + 1))
    for area, num_gt in enumerate(matches.num_gt):
        present = num_gt > 0
        needed = true_positives_needed(num_gt[present])
        counts = ~matches.ignore_unmatched[:, area]
        # False positives up to and including each hit, within its category, if no detection had matched.
        running = np.concatenate(([0], np.cumsum(counts)))
        if_unmatched = running[matches.hits + 1] - running[first[category_index]]
        counts = counts[matches.hits]
        for threshold in range(len(IOU_THRESHOLDS)):
            matched = has_bit(matches.matched, area, threshold)
            ignored = has_bit(matches.ignored, area, threshold)
            not_false = np.concatenate(([0], np.cumsum(counts & (matched | ignored))))
            hits = np.flatnonzero(matched & ~ignored)
            group = category_index[hits]
            fp = if_unmatched[hits] - (not_false[hits + 1] - not_false[first_hit[group]])
            tp = rank_within_group(group) + 1
            # lvis's order of operations, for equal rounding.
            envelope = _running_max_from_right(tp / (fp + tp + np.spacing(1)), group)
            num_tp = np.bincount(group, minlength=num_categories)
            begin = (np.cumsum(num_tp) - num_tp)[present]
            recall[area, threshold, present] = num_tp[present] / num_gt[present]
            ap[area, threshold, present] = _at_levels(envelope, begin, num_tp[present], needed).mean(1)
    return PerClassAP(ap, recall)


def mean_or_minus_one(values: np.ndarray) -> float:
    """The mean of what is not NaN, -1 if nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else -1.0


def true_positives_needed(num_gt: np.ndarray) -> np.ndarray:
    """(k, R) int64: the smallest n with n / num_gt >= level, by the same division as lvis."""
    needed = np.ceil(num_gt[:, None] * RECALL_LEVELS).astype(np.int64)
    # The product may round to either side of the quotient.
    needed -= (needed - 1) / num_gt[:, None] >= RECALL_LEVELS
    return needed + (needed / num_gt[:, None] < RECALL_LEVELS)


def _at_levels(
    envelope: np.ndarray, starts: np.ndarray, num_tp: np.ndarray, needed: np.ndarray
) -> np.ndarray:
    """(k, R): the envelope at the detection that reaches each recall level, 0 where none does."""
    # Level 0 needs no true positive; the envelope there is that of the first.
    rank = np.maximum(needed, 1)
    reached = rank <= num_tp[:, None]
    index = np.where(reached, starts[:, None] + rank - 1, 0)
    return np.where(reached, envelope[index], 0.0) if len(envelope) else np.zeros(needed.shape)


def _running_max_from_right(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The largest value at or after each index within its run of `group` (ascending)."""
    # Complex numbers compare by real part first, so from right to left the maximum restarts at each group.
    pairs = np.empty(len(values), dtype=np.complex128)
    pairs.real, pairs.imag = -group[::-1].astype(np.float64), values[::-1]
    return np.maximum.accumulate(pairs).imag[::-1]
