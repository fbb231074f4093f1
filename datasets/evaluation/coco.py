"""The 12 box metrics of COCO, equal to pycocotools', for data that is annotated exhaustively."""

from __future__ import annotations

import numpy as np

from datasets.annotations.categories import FREQUENCIES
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.candidates import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import coco_truth
from datasets.evaluation.grouping import rank_within_group, stable_order
from datasets.evaluation.lvis import AP_METRICS, average_precisions
from datasets.evaluation.matching import match
from datasets.evaluation.precision_recall import class_scores, mean_or_minus_one
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import BoxResult, class_results

# Detections of a class and image that count.
LIMITS = (1, 10, 100)
METRICS = (
    *AP_METRICS[:6],
    *(f"AR@{limit}" for limit in LIMITS),
    *(f"AR{size}@{LIMITS[-1]}" for size in "sml"),
)
COCO = f"COCO box AP (every class judged on every image, its best {LIMITS[-1]} detections of an image)"


def evaluate_coco(annotations: AnnotationTable, predictions: Predictions) -> BoxResult:
    """The metrics of COCO on boxes, by the rules of `pycocotools`; crowds need not be found.

    Where classes have frequencies, APr, APc and APf follow.
    Raises UserError for predictions of unknown images and scores that are no finite numbers.
    """
    categories = annotations.categories

    def limits(chunk: DetectionBatch) -> np.ndarray:
        by_class = stable_order(chunk.category + 1, len(categories) + 1)
        by_class = by_class[np.argsort(chunk.image[by_class], kind="stable")]
        rank = np.empty(len(by_class), dtype=np.int64)
        rank[by_class] = rank_within_group(
            chunk.image[by_class] * (len(categories) + 1) + chunk.category[by_class]
        )
        return rank < np.array(LIMITS)[:, None]

    chunks = iter_batches(annotations, predictions, sizeless="are false")
    matches = match(coco_truth(annotations), chunks, len(categories), limits, needs_size=False)
    one, ten, all_ = (class_scores(matches.within(limit)) for limit in range(3))
    frequencies = np.array([c.frequency for c in categories], dtype=str)
    precisions = average_precisions(all_, frequencies)
    recalls = [one.recall[0], ten.recall[0], *all_.recall]
    metrics = dict(zip(METRICS, (*precisions[:6], *map(mean_or_minus_one, recalls)), strict=True))
    if np.isin(frequencies, FREQUENCIES).any():
        metrics |= zip(AP_METRICS[6:], precisions[6:], strict=True)
    return BoxResult((COCO,), metrics, class_results(categories, matches.within(2), all_))
