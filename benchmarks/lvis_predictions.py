"""Predictions for generated annotations, as a detector's may look: for benchmarks."""

from __future__ import annotations

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.grouping import rank_within_group
from datasets.evaluation.predictions import ROW

# Of an annotated box: how often it is found (duplicates included), and how far off.
_FINDS = 1.6
_JITTER = 0.1
# False detections: this share is of classes that are judged on the image, the rest of any class.
_JUDGED_SHARE = 0.3


def draw_predictions(store: AnnotationTable, per_image: int, seed: int = 0) -> np.ndarray:
    """(I * per_image,) of ROW, in order of image, best first.

    Annotated boxes are found with jitter, scored by how close they are; the places that are left go to false
    ones with low scores. Scores are float32, coarse enough that some are equal.
    """
    rng = np.random.default_rng([seed, len(store), per_image])
    true = np.repeat(np.arange(len(store.areas)), rng.poisson(_FINDS, len(store.areas)))
    image = store.image_index[true]
    true = true[rank_within_group(image) < per_image]
    image = store.image_index[true]
    amount = _JITTER * rng.exponential(size=len(true))
    boxes = store.boxes_xywh[true] * np.exp(amount[:, None] * rng.normal(size=(len(true), 4)))
    scores = rng.beta(4, 3, len(true)) * np.exp(-2 * amount)
    rest = per_image - np.bincount(image, minlength=len(store))
    false_image, false_class, false_boxes = _false(rng, store, rest)
    image = np.concatenate((image, false_image))
    category = np.concatenate((store.category_index[true], false_class))
    scores = np.round(np.concatenate((scores, rng.beta(1, 12, len(false_class)))), 5)
    boxes = np.concatenate((boxes, false_boxes))
    order = np.lexsort((-scores, image))
    rows = np.empty(len(order), dtype=ROW)
    rows["image_id"] = store.image_ids[image[order]]
    rows["category_id"] = store.category_ids[category[order]]
    rows["score"] = scores[order]
    rows["box_xyxy"] = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)[order]
    return rows


def _false(
    rng: np.random.Generator, store: AnnotationTable, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, category, box xywh) of `counts` false detections of each image."""
    image = np.repeat(np.arange(len(store)), counts)
    # Classes by image that are judged there: of its boxes, and known to be absent.
    owner = np.concatenate((store.image_index, store.negatives.row_of_value))
    judged = np.concatenate((store.category_index, store.negatives.values))[np.argsort(owner, kind="stable")]
    lengths = np.bincount(owner, minlength=len(store))
    first = np.cumsum(lengths) - lengths
    own = first[image] + (rng.random(len(image)) * lengths[image]).astype(np.int64)
    shown = np.bincount(store.category_index, minlength=len(store.categories)) + 1
    category = rng.choice(len(shown), len(image), p=shown / shown.sum())
    use_own = (rng.random(len(image)) < _JUDGED_SHARE) & (lengths[image] > 0)
    category[use_own] = judged[own[use_own]]
    sides = np.exp(rng.normal(3.8, 0.9, (len(image), 2)))
    return image, category, np.concatenate((rng.random((len(image), 2)) * 400, sides), 1)
