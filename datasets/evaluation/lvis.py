"""The 13 box metrics of LVIS, equal to the `lvis` package's, and Fixed AP."""

from __future__ import annotations

import numpy as np

from datasets.annotations.categories import FREQUENCIES
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.candidates import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import lvis_truth
from datasets.evaluation.grouping import positions, rank_within_group, topk_per_group
from datasets.evaluation.matching import match
from datasets.evaluation.precision_recall import PerClassAP, class_scores, mean_or_minus_one
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import BoxResult, class_results
from util.logging import get_logger

MAX_DETECTIONS = 300
FIXED_AP_DETECTIONS = 10_000
AP_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
METRICS = (*AP_METRICS, *(f"AR{size}@{MAX_DETECTIONS}" for size in ("", "s", "m", "l")))
FIXED_METRICS = tuple(f"Fixed{name}" for name in AP_METRICS)
LVIS = f"LVIS box AP (federated, the best {MAX_DETECTIONS} detections of an image)"
FIXED = f"Fixed AP (federated, the best {FIXED_AP_DETECTIONS} detections of a class over all images)"


def evaluate_lvis(
    annotations: AnnotationTable, predictions: Predictions, *, fixed_ap: bool = False
) -> BoxResult:
    """The metrics of LVIS on boxes, by the rules of the `lvis` package.

    Federated: a class is judged on images where it is annotated or listed as absent. Where the annotations
    name no negatives at all (COCO), every class is judged on every image.
    fixed_ap: also Fixed AP (Dave et al. 2021): the same without a cap per image; instead, the best 10,000
        detections of each class over all images. It means something where predictions hold more than 300 an
        image.
    Raises UserError for predictions of unknown images and scores that are no finite numbers.
    """
    categories = annotations.categories
    in_class = _best_of_each_class(annotations, predictions) if fixed_ap else None

    def limits(chunk: DetectionBatch) -> np.ndarray:
        in_image = rank_within_group(chunk.image) < MAX_DETECTIONS
        return np.stack((in_image,) if in_class is None else (in_image, in_class[chunk.rows]))

    chunks = iter_batches(annotations, predictions, sizeless="are left out")
    matches = match(lvis_truth(annotations), chunks, len(categories), limits, needs_size=True)
    scores = class_scores(matches.within(0))
    frequencies = np.array([c.frequency for c in categories], dtype=str)
    metrics = dict(zip(METRICS, (*average_precisions(scores, frequencies), *_recalls(scores)), strict=True))
    classes = class_results(categories, matches.within(0), scores)
    if fixed_ap:
        fixed = class_scores(matches.within(1))
        metrics |= zip(FIXED_METRICS, average_precisions(fixed, frequencies), strict=True)
        classes = class_results(categories, matches.within(0), scores, fixed)
    return BoxResult((LVIS, FIXED) if fixed_ap else (LVIS,), metrics, classes)


def average_precisions(scores: PerClassAP, frequencies: np.ndarray) -> list[float]:
    """Those of AP_METRICS, 0..1, -1 where no box counts. frequencies: 'r', 'c', 'f' or '' of each class."""
    every = scores.precision
    return [
        mean_or_minus_one(every[0]),
        mean_or_minus_one(every[0, 0]),
        mean_or_minus_one(every[0, 5]),
        *(mean_or_minus_one(every[area]) for area in (1, 2, 3)),
        *(mean_or_minus_one(every[0][:, frequencies == f]) for f in FREQUENCIES),
    ]


def _recalls(scores: PerClassAP) -> list[float]:
    return [mean_or_minus_one(of_area) for of_area in scores.recall]


def _best_of_each_class(annotations: AnnotationTable, predictions: Predictions) -> np.ndarray:
    """(M,) bool."""
    category = positions(annotations.category_ids, predictions.category_ids)
    count = len(annotations.categories)
    few = np.count_nonzero(np.bincount(category[category >= 0], minlength=count) < FIXED_AP_DETECTIONS)
    get_logger().info(
        "Fixed AP: %d of %d classes have fewer than %d detections", few, count, FIXED_AP_DETECTIONS
    )
    return topk_per_group(category, predictions.scores, count, FIXED_AP_DETECTIONS)
