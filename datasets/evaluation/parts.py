"""The sets of a united evaluation, each by itself: its predictions in its own ids, its own table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.annotations.union import Part
from datasets.evaluation.grouping import index_of
from datasets.evaluation.predictions import Predictions


def own_predictions(part: Part, union: AnnotationTable, predictions: Predictions) -> Predictions:
    """The predictions on the part's images, of its classes, with its ids; in the same order.

    predictions: on the union.
    """
    image = index_of(union.image_ids, predictions.image_ids) - part.images.start
    class_of = np.full(len(union.categories), -1)
    class_of[part.class_index] = np.arange(len(part.class_index))
    category = class_of[index_of(union.category_ids, predictions.category_ids)]
    rows = np.flatnonzero((image >= 0) & (image < len(part.table)) & (category >= 0))
    return replace(
        predictions,
        image_ids=part.table.image_ids[image[rows]],
        category_ids=part.table.category_ids[category[rows]],
        scores=predictions.scores[rows],
        boxes=predictions.boxes[rows],
    )


def own_table(part: Part, union: AnnotationTable, damaged: Collection[int]) -> AnnotationTable:
    """The part's annotations without damaged images. damaged: ids of the union."""
    rows = index_of(union.image_ids, np.array(sorted(damaged), np.int64)) - part.images.start
    rows = rows[(rows >= 0) & (rows < len(part.table))]
    return part.table.without(part.table.image_ids[rows].tolist())
