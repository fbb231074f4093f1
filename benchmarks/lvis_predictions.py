"""Predictions for generated annotations, distributed like a detector's: for benchmarks."""

from __future__ import annotations

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.grouping import rank_within_group
from datasets.evaluation.predictions import ROW

# Detections per annotated box (duplicates included), and how far off they are.
_DETECTIONS_PER_BOX = 1.6
_JITTER = 0.1
# This share of the false positives is of classes that are evaluated on the image, the rest of any class.
_EVALUATED_SHARE = 0.3


def draw_predictions(annotations: AnnotationTable, per_image: int, seed: int = 0) -> np.ndarray:
    """(I * per_image,) of ROW, by image_index, best first.

    Annotated boxes are detected with jitter and scored by how close they are; false positives with low scores
    fill the rest. Scores are float32, coarse enough for ties.
    """
    rng = np.random.default_rng([seed, len(annotations), per_image])
    true = np.repeat(
        np.arange(len(annotations.areas)), rng.poisson(_DETECTIONS_PER_BOX, len(annotations.areas))
    )
    image_index = annotations.image_index[true]
    true = true[rank_within_group(image_index) < per_image]
    image_index = annotations.image_index[true]
    amount = _JITTER * rng.exponential(size=len(true))
    boxes = annotations.boxes_xywh[true] * np.exp(amount[:, None] * rng.normal(size=(len(true), 4)))
    scores = rng.beta(4, 3, len(true)) * np.exp(-2 * amount)
    rest = per_image - np.bincount(image_index, minlength=len(annotations))
    false_image_index, false_category_index, false_boxes = _false(rng, annotations, rest)
    image_index = np.concatenate((image_index, false_image_index))
    category_index = np.concatenate((annotations.category_index[true], false_category_index))
    scores = np.round(np.concatenate((scores, rng.beta(1, 12, len(false_category_index)))), 5)
    boxes = np.concatenate((boxes, false_boxes))
    order = np.lexsort((-scores, image_index))
    rows = np.empty(len(order), dtype=ROW)
    rows["image_id"] = annotations.image_ids[image_index[order]]
    rows["category_id"] = annotations.category_ids[category_index[order]]
    rows["score"] = scores[order]
    rows["box_xyxy"] = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)[order]
    return rows


def _false(
    rng: np.random.Generator, annotations: AnnotationTable, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image index, category index, box xywh) of `counts` false positives on each image."""
    image_index = np.repeat(np.arange(len(annotations)), counts)
    # Classes that are evaluated on each image: those of its boxes, and those verified absent.
    owner = np.concatenate((annotations.image_index, annotations.negatives.row_of_value))
    evaluated = np.concatenate((annotations.category_index, annotations.negatives.values))[
        np.argsort(owner, kind="stable")
    ]
    lengths = np.bincount(owner, minlength=len(annotations))
    first = np.cumsum(lengths) - lengths
    own = first[image_index] + (rng.random(len(image_index)) * lengths[image_index]).astype(np.int64)
    shown = np.bincount(annotations.category_index, minlength=len(annotations.categories)) + 1
    category_index = rng.choice(len(shown), len(image_index), p=shown / shown.sum())
    use_own = (rng.random(len(image_index)) < _EVALUATED_SHARE) & (lengths[image_index] > 0)
    category_index[use_own] = evaluated[own[use_own]]
    sides = np.exp(rng.normal(3.8, 0.9, (len(image_index), 2)))
    return image_index, category_index, np.concatenate((rng.random((len(image_index), 2)) * 400, sides), 1)
