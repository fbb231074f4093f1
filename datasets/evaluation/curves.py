"""Precision against recall for each class, and the score at which each recall is reached."""

from __future__ import annotations

import numpy as np

from datasets.evaluation.grouping import rank_within_group
from datasets.evaluation.judged import Judged
from datasets.evaluation.precision_recall import RECALL_LEVELS, true_positives_needed


def precision_curves(judged: Judged, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision at each recall level, and the score there: (K, 101), NaN beyond the recall.

    threshold: 0..T-1. All NaN for a class without boxes.
    """
    curves, scores = np.full((2, judged.num_classes, len(RECALL_LEVELS)), np.nan)
    dt = judged.hits[judged.true(threshold)]
    class_index = judged.class_index[dt]
    running = np.concatenate(([0], np.cumsum(judged.false(threshold))))
    tp = rank_within_group(class_index) + 1
    fp = running[dt] - running[np.searchsorted(judged.class_index, class_index)]
    precision = tp / (tp + fp)
    bounds = np.searchsorted(class_index, np.arange(judged.num_classes + 1))
    needed = true_positives_needed(np.maximum(judged.num_boxes, 1))
    for k in np.flatnonzero(np.diff(bounds)):
        part = slice(bounds[k], bounds[k + 1])
        envelope = np.maximum.accumulate(precision[part][::-1])[::-1]
        rank = np.maximum(needed[k], 1)
        reached = rank <= len(envelope)
        curves[k, reached] = envelope[rank[reached] - 1]
        scores[k, reached] = judged.scores[dt[part]][rank[reached] - 1]
    return curves, scores
