"""COCO box AP: the 12 metrics of pycocotools, to its digits, for exhaustively annotated data."""

from __future__ import annotations

import numpy as np

from datasets.annotations.categories import FREQUENCIES
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.detection_batches import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import coco_ground_truth
from datasets.evaluation.grouping import rank_within_group, stable_order
from datasets.evaluation.matching import match
from datasets.evaluation.precision_recall import mean_or_minus_one, per_class_ap
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import AP_METRICS, BoxResult, average_precisions, class_results

# Detections per class and image.
MAX_DETS = (1, 10, 100)
AR_METRICS = (*(f"AR@{n}" for n in MAX_DETS), *(f"AR{size}@{MAX_DETS[-1]}" for size in "sml"))
METRICS = (*AP_METRICS[:6], *AR_METRICS)
PROTOCOL = f"COCO box AP (exhaustive, top {MAX_DETS[-1]} detections per class and image)"


def evaluate_coco(annotations: AnnotationTable, predictions: Predictions) -> BoxResult:
    """The COCO box metrics, by the rules of `pycocotools`.

    Crowd boxes are ignored, and so are detections that fall inside one. Where the file has frequencies, APr,
    APc and APf stand behind the other APs.
    Raises UserError for predictions of unknown images and for scores that are not finite.
    """
    categories = annotations.categories

    def within_max_dets(batch: DetectionBatch) -> np.ndarray:
        order = stable_order(batch.category_index + 1, len(categories) + 1)
        order = order[np.argsort(batch.image_index[order], kind="stable")]
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = rank_within_group(
            batch.image_index[order] * (len(categories) + 1) + batch.category_index[order]
        )
        return rank < np.array(MAX_DETS)[:, None]

    batches = iter_batches(annotations, predictions, no_area_outcome="count as false positives")
    matches = match(
        coco_ground_truth(annotations), batches, len(categories), within_max_dets, needs_area=False
    )
    one, ten, hundred = (per_class_ap(matches.within(limit)) for limit in range(len(MAX_DETS)))
    num_aps = 9 if any(c.frequency in FREQUENCIES for c in categories) else 6
    metrics = dict(zip(AP_METRICS[:num_aps], average_precisions(hundred, categories), strict=False))
    recalls = (one.recall[0], ten.recall[0], *hundred.recall)
    metrics |= zip(AR_METRICS, map(mean_or_minus_one, recalls), strict=True)
    return BoxResult((PROTOCOL,), metrics, class_results(categories, matches.within(2), hundred))
