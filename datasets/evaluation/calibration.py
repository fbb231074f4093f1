"""Is a score of 0.7 right seven times in ten? Reliability diagram and expected calibration error.

Of judged detections with a score of at least MIN_SCORE; right means a match at IoU 0.5. A detector gives
hundreds of detections an image whatever it sees: with all of them the error would be that of the lowest bin.
The error is that of detection (Kueppers et al. 2020, arXiv 2004.13546) without box coordinates: the mean over
detections of |precision - mean score| of their bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.evaluation.judged import Judged

MIN_SCORE = 0.05
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """BINS bins of equal width from 0 to 1.

    edges: (BINS + 1,).  count: (BINS,) int64 detections.  score, precision: (BINS,) means, NaN in an empty
    bin.  error: the expected calibration error, NaN without detections.
    """

    edges: np.ndarray
    count: np.ndarray
    score: np.ndarray
    precision: np.ndarray
    error: float


def calibrate(judged: Judged, classes: np.ndarray) -> Calibration:
    """The calibration of the detections of some classes. classes: (K,) bool."""
    right = np.zeros(len(judged.rows), bool)
    right[judged.hits] = judged.true(0)
    # What is ignored is neither.
    used = (right | judged.false(0)) & classes[judged.class_index] & (judged.scores >= MIN_SCORE)
    scores, right = judged.scores[used].astype(np.float64), right[used]
    bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        score = np.bincount(bins, scores, BINS) / count
        precision = np.bincount(bins, right, BINS) / count
    filled = count > 0
    gap = np.abs(precision - score)[filled]
    error = float((gap * count[filled]).sum() / count.sum()) if filled.any() else float("nan")
    return Calibration(np.linspace(0, 1, BINS + 1), count, score, precision, error)
