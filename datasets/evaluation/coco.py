"""COCO box AP: the 12 metrics of pycocotools, to its digits, for exhaustively annotated data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datasets.annotations.categories import FREQUENCIES
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.detection_batches import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import coco_ground_truth
from datasets.evaluation.grouping import rank_within_group, stable_order
from datasets.evaluation.matching import Matches, match
from datasets.evaluation.precision_recall import mean_or_minus_one, per_class_ap
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import AP_METRICS, BoxResult, average_precisions, class_results

# Detections per class and image.
MAX_DETS = (1, 10, 100)
AR_METRICS = (*(f"AR@{n}" for n in MAX_DETS), *(f"AR{size}@{MAX_DETS[-1]}" for size in "sml"))
METRICS = (*AP_METRICS[:6], *AR_METRICS)
# What becomes of detections without area, for a message.
NO_AREA_OUTCOME = "count as false positives"
PROTOCOL = f"COCO box AP (exhaustive, top {MAX_DETS[-1]} detections per class and image)"


def evaluate_coco(annotations: AnnotationTable, predictions: Predictions) -> BoxResult:
    """The COCO box metrics, by the rules of `pycocotools`.

    Crowd boxes are ignored, and so are detections that fall inside one. Where the file has frequencies, APr,
    APc and APf stand behind the other APs.
    Raises UserError for predictions of unknown images and for scores that are not finite.
    """
    batches = iter_batches(annotations, predictions, NO_AREA_OUTCOME)
    return summarize_coco(annotations, match_coco(annotations, batches))


def match_coco(annotations: AnnotationTable, batches: Iterable[DetectionBatch]) -> Matches:
    """Matches the best of each class and image, within each of MAX_DETS."""

    def within_max_dets(batch: DetectionBatch) -> np.ndarray:
        return rank_in_class(batch) < np.array(MAX_DETS)[:, None]

    gt = coco_ground_truth(annotations)
    return match(gt, batches, len(annotations.categories), within_max_dets, needs_area=False)


def rank_in_class(batch: DetectionBatch) -> np.ndarray:
    """(n,) int64: the rank of each detection by score, 0 for the best, among those of its image and class."""
    # A detection of no known class has category_index -1.
    num_groups = int(batch.category_index.max(initial=0)) + 2
    order = stable_order(batch.category_index + 1, num_groups)
    order = order[np.argsort(batch.image_index[order], kind="stable")]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = rank_within_group(batch.image_index[order] * num_groups + batch.category_index[order])
    return rank


def summarize_coco(annotations: AnnotationTable, matches: Matches) -> BoxResult:
    """The metrics from the matches of `match_coco`."""
    categories = annotations.categories
    one, ten, hundred = (per_class_ap(matches.within(limit)) for limit in range(len(MAX_DETS)))
    num_aps = 9 if any(c.frequency in FREQUENCIES for c in categories) else 6
    metrics = dict(zip(AP_METRICS[:num_aps], average_precisions(hundred, categories), strict=False))
    recalls = (one.recall[0], ten.recall[0], *hundred.recall)
    metrics |= zip(AR_METRICS, map(mean_or_minus_one, recalls), strict=True)
    return BoxResult((PROTOCOL,), metrics, class_results(categories, matches.within(2), hundred))
