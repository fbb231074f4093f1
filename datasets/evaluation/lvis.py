"""LVIS box AP: the 13 metrics of the `lvis` package, to its digits, and Fixed AP."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.detection_batches import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import lvis_ground_truth
from datasets.evaluation.grouping import index_of, rank_within_group, topk_per_group
from datasets.evaluation.matching import Matches, match
from datasets.evaluation.precision_recall import mean_or_minus_one, per_class_ap
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import AP_METRICS, BoxResult, average_precisions, class_results
from util.logging import get_logger

# Detections per image; for Fixed AP, per class over all images.
MAX_DETS = 300
FIXED_AP_MAX_DETS = 10_000
METRICS = (*AP_METRICS, *(f"AR{size}@{MAX_DETS}" for size in ("", "s", "m", "l")))
FIXED_METRICS = tuple(f"Fixed{name}" for name in AP_METRICS)
# What becomes of detections without area, for a message.
NO_AREA_OUTCOME = "are dropped"
PROTOCOL = f"LVIS box AP (federated, top {MAX_DETS} detections per image)"
FIXED_PROTOCOL = f"Fixed AP (federated, top {FIXED_AP_MAX_DETS} detections per class over all images)"


def evaluate_lvis(
    annotations: AnnotationTable, predictions: Predictions, *, fixed_ap: bool = False
) -> BoxResult:
    """The LVIS box metrics, by the rules of the `lvis` package.

    Federated: a category is evaluated on images where it is annotated or verified absent; if no image lists
    negatives (COCO), on every image.
    fixed_ap: adds Fixed AP (Dave et al. 2021), which replaces the cap per image by the top 10,000 detections
        of each class over all images; only meaningful with more than 300 predictions per image.
    Raises UserError for predictions of unknown images and for scores that are not finite.
    """
    in_class_top = _top_of_each_class(annotations, predictions) if fixed_ap else None
    batches = iter_batches(annotations, predictions, NO_AREA_OUTCOME)
    return summarize_lvis(annotations, match_lvis(annotations, batches, in_class_top), fixed_ap=fixed_ap)


def match_lvis(
    annotations: AnnotationTable, batches: Iterable[DetectionBatch], in_class_top: np.ndarray | None = None
) -> Matches:
    """Matches the top 300 of each image.

    in_class_top: (N,) bool, the predictions that count for Fixed AP, which becomes a second limit.
    """

    def within_max_dets(batch: DetectionBatch) -> np.ndarray:
        limits = [in_image_top(batch)]
        if in_class_top is not None:
            limits.append(in_class_top[batch.rows])
        return np.stack(limits)

    gt = lvis_ground_truth(annotations)
    return match(gt, batches, len(annotations.categories), within_max_dets, needs_area=True)


def in_image_top(batch: DetectionBatch) -> np.ndarray:
    """(n,) bool: the detections that count."""
    return rank_within_group(batch.image_index) < MAX_DETS


def summarize_lvis(annotations: AnnotationTable, matches: Matches, *, fixed_ap: bool = False) -> BoxResult:
    """The metrics from the matches of `match_lvis`."""
    categories = annotations.categories
    in_image = matches.within(0)
    scores = per_class_ap(in_image)
    recalls = map(mean_or_minus_one, scores.recall)
    metrics = dict(zip(METRICS, (*average_precisions(scores, categories), *recalls), strict=True))
    if not fixed_ap:
        return BoxResult((PROTOCOL,), metrics, class_results(categories, in_image, scores))
    fixed = per_class_ap(matches.within(1))
    metrics |= zip(FIXED_METRICS, average_precisions(fixed, categories), strict=True)
    return BoxResult((PROTOCOL, FIXED_PROTOCOL), metrics, class_results(categories, in_image, scores, fixed))


def _top_of_each_class(annotations: AnnotationTable, predictions: Predictions) -> np.ndarray:
    """(M,) bool."""
    category_index = index_of(annotations.category_ids, predictions.category_ids)
    num_categories = len(annotations.categories)
    counts = np.bincount(category_index[category_index >= 0], minlength=num_categories)
    get_logger().info(
        "Fixed AP: %d of %d classes have fewer than %d detections",
        np.count_nonzero(counts < FIXED_AP_MAX_DETS),
        num_categories,
        FIXED_AP_MAX_DETS,
    )
    return topk_per_group(category_index, predictions.scores, num_categories, FIXED_AP_MAX_DETS)
