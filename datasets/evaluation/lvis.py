"""LVIS box AP: the 13 metrics of the `lvis` package, to its digits, and Fixed AP."""

from __future__ import annotations

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.detection_batches import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import lvis_ground_truth
from datasets.evaluation.grouping import index_of, rank_within_group, topk_per_group
from datasets.evaluation.matching import match
from datasets.evaluation.precision_recall import mean_or_minus_one, per_class_ap
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import AP_METRICS, BoxResult, average_precisions, class_results
from util.logging import get_logger

# Detections per image; for Fixed AP, per class over all images.
MAX_DETS = 300
FIXED_AP_MAX_DETS = 10_000
METRICS = (*AP_METRICS, *(f"AR{size}@{MAX_DETS}" for size in ("", "s", "m", "l")))
FIXED_METRICS = tuple(f"Fixed{name}" for name in AP_METRICS)
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
    categories = annotations.categories
    in_class_top = _top_of_each_class(annotations, predictions) if fixed_ap else None

    def within_max_dets(batch: DetectionBatch) -> np.ndarray:
        in_image_top = rank_within_group(batch.image_index) < MAX_DETS
        return np.stack((in_image_top, *(() if in_class_top is None else (in_class_top[batch.rows],))))

    batches = iter_batches(annotations, predictions, no_area_outcome="are dropped")
    matches = match(
        lvis_ground_truth(annotations), batches, len(categories), within_max_dets, needs_area=True
    )
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
