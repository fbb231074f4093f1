"""AP of every class when images have weights, and the bootstrap that such weights make.

Intervals are those of the Bayesian bootstrap (Rubin 1981): each replicate weighs the images by independent
draws of the standard exponential distribution. Resampling with replacement would leave out a third of the
images in each replicate, and with them every box of many a rare class; here no class is ever without boxes.

Three things are put right, so that replicas scatter around the measured AP as widely as that of other images:

- Their mean is moved to the measured AP. Under weights the envelope of the precision picks from more noise.
- Such weights understate the variance of a mean over n images by (n - 1) / (n + 1), which is most of it for
  classes on few images. The deviations of a class on n images are widened by the root of the inverse.
- A class on one image says nothing about its variance. It takes the deviation of its AP from the mean of all
  such classes, with a random factor (a wild bootstrap over collapsed strata), which is rather too wide.

The interval answers one question: how much would the number move on other validation images of the same kind?
It does not know how much it would move with another training seed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from datasets.evaluation.ground_truth import IOU_THRESHOLDS
from datasets.evaluation.grouping import run_starts
from datasets.evaluation.judged import Judged, has_bit
from datasets.evaluation.precision_recall import RECALL_LEVELS

# Recall levels are 0, 1/100, ..., 1.
LAST_LEVEL = 100
# A product may fall short of its level by a rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class _Threshold:
    """true: (n,) the hits that are true positives.  false: (H,) float64, 1 for hits that are false positives.
    class_index: (n,).  first_hit: (n,) the first hit of each one's class.
    starts: where each class begins among `true`.  first: (n,) the start of each one's class."""

    true: np.ndarray
    false: np.ndarray
    class_index: np.ndarray
    first_hit: np.ndarray
    starts: np.ndarray
    first: np.ndarray


class WeightedAP:
    """Prepared once, then called with weights. Work and memory grow with the judged detections."""

    def __init__(self, judged: Judged) -> None:
        self._num_classes = judged.num_classes
        boxes, hits = judged.boxes, judged.hits
        self._box_image = boxes.image_index[boxes.counted]
        self._box_class = boxes.class_index[boxes.counted]
        self._hit_image, self._hit_class = judged.image_index[hits], judged.class_index[hits]
        first_hit = np.searchsorted(self._hit_class, self._hit_class)
        self._thresholds = []
        for threshold in range(len(IOU_THRESHOLDS)):
            true = np.flatnonzero(judged.true(threshold))
            false = judged.counts[hits] & ~has_bit(judged.matched | judged.ignored, threshold)
            class_index = self._hit_class[true].astype(np.int64)
            starts = run_starts(class_index)
            first = np.repeat(starts, np.diff(np.append(starts, len(true))))
            self._thresholds.append(
                _Threshold(true, false.astype(np.float64), class_index, first_hit[true], starts, first)
            )
        self._find_false(judged)

    def _find_false(self, judged: Judged) -> None:
        """Detections that are false at every threshold, up to the last hit of their class, by next hit."""
        is_hit = np.zeros(len(judged.rows), bool)
        is_hit[judged.hits] = True
        false = np.flatnonzero(judged.counts & ~is_hit)
        next_hit = np.cumsum(is_hit)[false]
        false, next_hit = (column[next_hit < len(judged.hits)] for column in (false, next_hit))
        same_class = judged.class_index[false] == self._hit_class[next_hit]
        false, next_hit = false[same_class], next_hit[same_class]
        self._false_image = judged.image_index[false]
        self._false_starts = run_starts(next_hit)
        self._false_hit = next_hit[self._false_starts]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(I,) float64 weights >= 0 of the images -> (K,) float64 AP, NaN for a class without boxes."""
        num_boxes = np.bincount(self._box_class, weights[self._box_image], minlength=self._num_classes)
        hit_weights = weights[self._hit_image]
        before = np.zeros(len(hit_weights))
        if len(self._false_starts):
            before[self._false_hit] = np.add.reduceat(weights[self._false_image], self._false_starts)
        before = np.cumsum(before)
        total = np.zeros(self._num_classes)
        for threshold in self._thresholds:
            self._add(threshold, hit_weights, before, num_boxes, total)
        return np.where(num_boxes > 0, total / len(self._thresholds), np.nan)

    def _add(
        self,
        threshold: _Threshold,
        hit_weights: np.ndarray,
        before: np.ndarray,
        num_boxes: np.ndarray,
        total: np.ndarray,
    ) -> None:
        """Adds the APs at one threshold to `total` (K,)."""
        if not len(threshold.true):
            return
        class_index = threshold.class_index
        # Running totals begin with a 0, and are taken relative to where the class begins.
        false = np.zeros(len(before) + 1)
        np.cumsum(threshold.false * hit_weights, out=false[1:])
        false[1:] += before
        fp = false[threshold.true + 1] - false[threshold.first_hit]
        tp = np.zeros(len(class_index) + 1)
        np.cumsum(hit_weights[threshold.true], out=tp[1:])
        tp = tp[1:] - tp[threshold.first]
        ap = interpolated_ap(tp, fp, num_boxes[class_index], class_index, threshold.starts)
        total[class_index[threshold.starts]] += ap


def interpolated_ap(
    tp: np.ndarray, fp: np.ndarray, num_boxes: np.ndarray, class_index: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """(k,) AP of the k classes that have a true positive: mean interpolated precision over 101 recall levels.

    tp, fp:    (n,) weight of the true and false positives of the class up to and including each of n true
               positives, which are sorted by class, then score.
    num_boxes: (n,) weight of the boxes of its class.  starts: (k,) where each class begins.
    """
    # Of weights that were summed in another order, a difference may be minus a rounding error.
    precision = tp / np.maximum(tp + np.maximum(fp, 0.0), np.finfo(float).tiny)
    # From right to left classes descend; with an offset that ascends, the maximum starts anew at each.
    shift = -2.0 * class_index[::-1]
    envelope = (np.maximum.accumulate(precision[::-1] + shift) - shift)[::-1]
    recall = np.minimum(tp / np.maximum(num_boxes, np.finfo(float).tiny), 1.0)
    level = np.floor(LAST_LEVEL * recall + _ROUNDING).astype(np.int64)
    # lvis's level 0.35 is a little above 35 / 100, so that 35 of 100 boxes do not reach it; and nine more.
    level -= recall < RECALL_LEVELS[level]
    gained = np.diff(level, prepend=-1)
    gained[starts] = level[starts] + 1
    return np.add.reduceat(envelope * gained, starts) / (LAST_LEVEL + 1)


def image_weights(num_images: int, replicate: int, seed: int = 0) -> np.ndarray:
    """(I,) float64; the same for every run, so that differences are paired."""
    return np.random.default_rng((seed, replicate)).standard_exponential(num_images)


def bootstrap(runs: Sequence[Judged], replicates: int, seed: int = 0) -> list[np.ndarray]:
    """(replicates, K) float64 AP of every class in every replicate, for each run on the same images.

    Centred on the measured AP; NaN for a class without boxes. Where runs are subtracted, so are replicas.
    """
    measures = [WeightedAP(judged) for judged in runs]
    replicas = [np.empty((replicates, judged.num_classes)) for judged in runs]

    def fill(replicate: int) -> None:
        weights = image_weights(runs[0].num_images, replicate, seed)
        for measure, replica in zip(measures, replicas, strict=True):
            replica[replicate] = measure(weights)

    # NumPy lets go of the interpreter's lock in the long operations.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(replicates)):
            pass
    factors = np.random.default_rng((seed, replicates)).standard_normal(replicas[0].shape)
    everywhere = np.ones(runs[0].num_images)
    return [
        _as_wide_as_other_images(replica, measure(everywhere), runs[0].images_of_class, factors)
        for replica, measure in zip(replicas, measures, strict=True)
    ]


def _as_wide_as_other_images(
    replicas: np.ndarray, ap: np.ndarray, images: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """(B, K) replicas, centred and widened. ap: (K,) measured.  images: (K,) with each class.
    factors: (B, K) standard normal."""
    deviations = replicas - replicas.mean(0)
    deviations *= np.sqrt((images + 1) / np.maximum(images - 1, 1))
    alone = images == 1
    if alone.any():
        deviations[:, alone] = factors[:, alone] * (ap[alone] - ap[alone].mean())
    return ap + deviations


def interval(replicas: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """(replicates,) -> the lower and upper end of the middle `level` of them."""
    low, high = np.quantile(replicas, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
