"""What AP lacks, split by kind of error, in the manner of TIDE (Bolya et al. 2020, arXiv 2008.08115).

At an IoU threshold t, a false positive is, by its IoU with the nearest counted box of its own class (own) and
of another class (other), the first of

    localisation    0.1 <= own < t
    classification  other >= t
    duplicate       own >= t: the box has a better match
    background      own and other < 0.1
    both            the rest: near a box of another class

and a box without a match is `missed` unless a false positive of the first two kinds is on it. Each kind can
be mended: duplicate, background and both disappear; localisation and classification become true positives of
their box, the best one if there are several and none if the box has a match; missed boxes are no longer asked
for.

TIDE reports what mending one kind alone would bring (`alone`). These gains do not sum to what is lacking,
since errors hide one another. `share` is the mean gain of mending a kind over all orders in which the six can
be mended (its Shapley value): where a kind occurs alone it is the same number, and the six always sum to
1 - AP exactly, for mending all leaves nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import factorial

import numpy as np

from datasets.evaluation.ground_truth import IOU_THRESHOLDS
from datasets.evaluation.grouping import run_starts
from datasets.evaluation.judged import NEAR, Judged
from datasets.evaluation.weighted_ap import interpolated_ap

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
_NUM_FALSE = 5
_SUBSETS = list(product((False, True), repeat=len(KINDS)))


@dataclass(frozen=True)
class ErrorSplit:
    """By kind (first axis, as KINDS) and class; 0..1. NaN for a class without boxes.

    share, share50: (6, K): parts of 1 - AP, and of 1 - AP50.
    alone, alone50: (6, K): what mending this kind alone adds to AP, and to AP50.
    counts:         (6, K) int64 at IoU 0.5: false positives of the class, whatever their score, and missed
                    boxes.
    """

    share: np.ndarray
    share50: np.ndarray
    alone: np.ndarray
    alone50: np.ndarray
    counts: np.ndarray


def kinds_of(judged: Judged, threshold: int) -> np.ndarray:
    """(D,) int8: the kind of each false positive at a threshold 0..T-1, an index into KINDS; -1: none."""
    at = np.float32(IOU_THRESHOLDS[threshold])
    own, other = judged.same_iou, judged.other_iou
    kinds = np.full(len(own), BOTH, np.int8)
    kinds[(own < NEAR) & (other < NEAR)] = BACKGROUND
    kinds[own >= at] = DUPLICATE
    kinds[(other >= at) & (own < at)] = CLASSIFICATION
    kinds[(own >= NEAR) & (own < at)] = LOCALISATION
    kinds[~judged.false(threshold)] = -1
    return kinds


def split_errors(judged: Judged) -> ErrorSplit:
    """The split of every class, over all IoU thresholds and at 0.5."""
    shapley, alone = _shapley_matrix(), _alone_matrix()
    num_boxes = judged.num_boxes
    share, single = np.zeros((2, len(KINDS), judged.num_classes))
    for threshold in range(len(IOU_THRESHOLDS)):
        mending = _Mending(judged, threshold)
        values = np.stack([mending.ap(subset) for subset in _SUBSETS])
        values[:, num_boxes == 0] = np.nan
        parts = shapley @ values, alone @ values
        if not threshold:
            at_50, counts = parts, mending.counts()
        share += parts[0]
        single += parts[1]
    number = len(IOU_THRESHOLDS)
    return ErrorSplit(share / number, at_50[0], single / number, at_50[1], counts)


class _Mending:
    """AP of every class at one threshold after kinds of errors are mended."""

    def __init__(self, judged: Judged, threshold: int) -> None:
        self.judged = judged
        self.kinds = kinds_of(judged, threshold)
        self.num_boxes = judged.num_boxes
        missed = judged.missed(threshold)
        self.best = {
            LOCALISATION: self._best_on(missed, LOCALISATION, judged.same_box),
            CLASSIFICATION: self._best_on(missed, CLASSIFICATION, judged.other_box),
        }
        for _, box in self.best.values():
            missed[box] = False
        self.num_missed = np.bincount(judged.boxes.class_index[missed], minlength=judged.num_classes)
        self.true = judged.hits[judged.true(threshold)]
        # [kind, i]: false positives of the kind among the first i detections.
        self.running = np.zeros((_NUM_FALSE, len(judged.rows) + 1), np.int32)
        for kind in range(_NUM_FALSE):
            np.cumsum(self.kinds == kind, out=self.running[kind, 1:])
        self.lists = {flags: self._true_positives(*flags) for flags in product((False, True), repeat=2)}

    def _best_on(self, missed: np.ndarray, kind: int, box_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(detections, boxes): the best false positive of a kind on each missed box that has one."""
        dt = np.flatnonzero(self.kinds == kind)
        box = box_of[dt]
        on_missed = missed[box]
        dt, box = dt[on_missed], box[on_missed]
        order = np.lexsort((dt, -self.judged.scores[dt], box))
        first = order[run_starts(box[order])]
        return dt[first], box[first]

    def _true_positives(self, classification: bool, localisation: bool) -> _TruePositives:
        """The true positives once these kinds are mended."""
        parts = [(self.true, np.full(len(self.true), -1))]
        if classification:
            parts.append(self.best[CLASSIFICATION])
        if localisation:
            parts.append(self.best[LOCALISATION])
        dt, box = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        class_index = np.where(box < 0, self.judged.class_index[dt], self.judged.boxes.class_index[box])
        if classification and localisation:
            keep = _best_of_each_box(box, self.judged.scores[dt])
            dt, class_index = dt[keep], class_index[keep]
        return _TruePositives(self.judged, self.running, dt, class_index)

    def ap(self, mended: tuple[bool, ...]) -> np.ndarray:
        """(K,) AP with the kinds mended for which `mended`, in the order of KINDS, is True."""
        true = self.lists[mended[CLASSIFICATION], mended[LOCALISATION]]
        num_boxes = self.num_boxes - self.num_missed * mended[MISSED]
        # Where no box is left to be found nothing is lacking.
        ap = np.where(num_boxes > 0, 0.0, 1.0)
        if len(true.starts):
            classes = true.class_index[true.starts]
            fp = true.before[~np.array(mended[:_NUM_FALSE])].sum(0)
            ap[classes] = interpolated_ap(
                true.rank, fp, num_boxes[true.class_index], true.class_index, true.starts
            )
        return ap

    def counts(self) -> np.ndarray:
        """(6, K) int64, as in `ErrorSplit`."""
        num_classes = self.judged.num_classes
        false = [
            np.bincount(self.judged.class_index[self.kinds == kind], minlength=num_classes)
            for kind in range(_NUM_FALSE)
        ]
        return np.stack((*false, self.num_missed))


class _TruePositives:
    """True positives sorted by class, then score, with the false positives of each kind before them.

    class_index: (n,).  rank: (n,) float64 1, 2, ... in each class.  before: (5, n) int32.
    starts: where each class begins.
    """

    def __init__(self, judged: Judged, running: np.ndarray, dt: np.ndarray, class_index: np.ndarray) -> None:
        place = dt.copy()
        moved = np.flatnonzero(class_index != judged.class_index[dt])
        place[moved] = _place_in_class(judged, dt[moved], class_index[moved])
        order = np.lexsort((-judged.scores[dt], place, class_index))
        self.class_index, place = class_index[order], place[order]
        self.starts = run_starts(self.class_index)
        sizes = np.diff(np.append(self.starts, len(order)))
        self.rank = np.arange(1.0, len(order) + 1) - np.repeat(self.starts, sizes)
        first = np.searchsorted(judged.class_index, self.class_index)
        self.before = running[:, place] - running[:, first]


def _place_in_class(judged: Judged, dt: np.ndarray, class_index: np.ndarray) -> np.ndarray:
    """(m,) int64: where detections would stand, by score, had they another class; behind equal scores."""
    places = np.empty(len(dt), np.int64)
    bounds = np.searchsorted(judged.class_index, np.arange(judged.num_classes + 1))
    order = np.argsort(class_index, kind="stable")
    starts = run_starts(class_index[order])
    for rows in np.split(order, starts[1:]) if len(order) else ():
        low, high = bounds[class_index[rows[0]]], bounds[class_index[rows[0]] + 1]
        places[rows] = low + np.searchsorted(-judged.scores[low:high], -judged.scores[dt[rows]], "right")
    return places


def _best_of_each_box(box: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices: all entries with box -1, and of each other box the one with the highest score."""
    mended = np.flatnonzero(box >= 0)
    order = mended[np.lexsort((-scores[mended], box[mended]))]
    return np.concatenate((np.flatnonzero(box < 0), order[run_starts(box[order])]))


def _shapley_matrix() -> np.ndarray:
    """(6, 64): from AP after each of _SUBSETS is mended to the shares."""
    number = len(KINDS)
    matrix = np.zeros((number, len(_SUBSETS)))
    for column, subset in enumerate(_SUBSETS):
        size = sum(subset)
        for kind, mended in enumerate(subset):
            before = size - 1 if mended else size
            weight = factorial(before) * factorial(number - before - 1) / factorial(number)
            matrix[kind, column] = weight if mended else -weight
    return matrix


def _alone_matrix() -> np.ndarray:
    """(6, 64): the gain of each kind alone."""
    matrix = np.zeros((len(KINDS), len(_SUBSETS)))
    matrix[:, 0] = -1.0
    for column, kind in _singles():
        matrix[kind, column] = 1.0
    return matrix


def _singles() -> Iterator[tuple[int, int]]:
    """(index of the subset, kind) of the subsets of one kind."""
    for column, subset in enumerate(_SUBSETS):
        if sum(subset) == 1:
            yield column, subset.index(True)
