"""Matches -> precision-recall curves -> the 13 box metrics of LVIS, equal to the `lvis` package's.

T = 10 overlap thresholds, R = 101 recall levels, K categories, A = 4 area ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.classes import FREQUENCIES
from datasets.lvis_matching import AREA_RANGES, IOU_THRESHOLDS, MAX_DETECTIONS, Matches, match
from datasets.predictions import Predictions
from datasets.store import AnnotationStore

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"),
    *(f"AR{size}@{MAX_DETECTIONS}" for size in ("", "s", "m", "l")),
)


@dataclass(frozen=True)
class LvisResult:
    """metrics: name -> value in 0..1, -1 where no box counts (as in `lvis`), in lvis's order.

    precision: (T, R, K, A) float64, -1 for a category without a box in that area range.
    recall:    (T, K, A) float64, likewise.
    """

    metrics: dict[str, float]
    precision: np.ndarray
    recall: np.ndarray

    @property
    def ap_of_category(self) -> np.ndarray:
        """(K,) float64 AP of each category (ascending id), NaN where it has no box."""
        of_category = self.precision[..., 0].mean((0, 1))
        return np.where(of_category < 0, np.nan, of_category)


def evaluate_lvis(annotations: AnnotationStore, predictions: Predictions) -> LvisResult:
    """The metrics of LVIS on boxes, by the rules of the `lvis` package (see `datasets.lvis_matching`).

    Federated: where the annotations name no negatives at all (COCO), every class counts on every picture.
    Raises UserError for predictions of unknown pictures and scores that are not numbers.
    """
    return _summarise(match(annotations, predictions), [c.frequency for c in annotations.categories])


def _summarise(matches: Matches, frequencies: Sequence[str]) -> LvisResult:
    """frequencies: 'r', 'c', 'f' or '' of each of the K categories."""
    precision, recall = _curves(matches)
    groups = [np.flatnonzero(np.array(frequencies, dtype=str) == f) for f in FREQUENCIES]
    values = [
        _mean(precision[..., 0]),
        _mean(precision[:1, ..., 0]),
        _mean(precision[5:6, ..., 0]),
        *(_mean(precision[..., area]) for area in (1, 2, 3)),
        *(_mean(precision[:, :, group, 0]) for group in groups),
        *(_mean(recall[..., area]) for area in range(4)),
    ]
    return LvisResult(dict(zip(METRICS, values, strict=True)), precision, recall)


def _curves(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, K, A) at the recall levels, and final recall (T, K, A)."""
    areas, categories = matches.boxes.shape
    precision = np.full((len(IOU_THRESHOLDS), len(RECALL_LEVELS), categories, areas), -1.0)
    recall = np.full((len(IOU_THRESHOLDS), categories, areas), -1.0)
    category = matches.category[matches.found]
    first = np.searchsorted(matches.category, np.arange(categories))
    for area in range(len(AREA_RANGES)):
        boxes = matches.boxes[area]
        present = boxes > 0
        needed = _true_needed(boxes[present])
        counts_as_false = ~matches.excused[:, area]
        # False detections up to and including each row, within its category, were none of them matched.
        false = np.concatenate(([0], np.cumsum(counts_as_false)))
        unmatched = (false[1:] - false[first[matches.category]])[matches.found]
        counts_as_false = counts_as_false[matches.found]
        for threshold in range(len(IOU_THRESHOLDS)):
            matched, ignored = matches.matched[:, area, threshold], matches.ignored[:, area, threshold]
            spared = _running_count(counts_as_false & (matched | ignored), category)
            true = matched & ~ignored
            starts = np.searchsorted(category[true], np.arange(categories))
            totals = np.bincount(category[true], minlength=categories)
            hits = np.arange(1, len(category[true]) + 1) - np.repeat(starts, totals)
            envelope = _best_to_the_right(
                hits / ((unmatched - spared)[true] + hits + np.spacing(1)), category[true]
            )
            recall[threshold, present, area] = totals[present] / boxes[present]
            precision[threshold][:, present, area] = _at_levels(
                envelope, starts[present], totals[present], needed
            ).T
    return precision, recall


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


def _running_count(flags: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Inclusive count of `flags` within each run of `group` (sorted)."""
    total = np.concatenate(([0], np.cumsum(flags)))
    return total[1:] - total[np.searchsorted(group, group)]


def _best_to_the_right(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The largest value at or after each place within its run of `group` (sorted), by doubling the reach."""
    best, reach = values, 1
    longest = np.bincount(group).max() if len(group) else 0
    while reach < longest:
        ahead = np.where(group[reach:] == group[:-reach], best[reach:], 0.0)
        best = np.concatenate((np.maximum(best[:-reach], ahead), best[-reach:]))
        reach *= 2
    return best


def _mean(values: np.ndarray) -> float:
    """The mean over what exists (> -1), -1 where nothing does. The order of summation is lvis's."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0
