"""Which class is detected in place of which.

For each counted box: the class of the detection with the highest score, of any class, at IoU 0.5 or more. No
score threshold is needed, and in LVIS detections of classes that are not judged on the image take part: they
are no errors for AP, but they are what a user of the model would see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.grouping import index_of
from datasets.evaluation.judged import Judged
from datasets.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Confusions:
    """right, nothing: (K,) int64 boxes whose top detection has their class; boxes without any.

    true, detected, boxes, judged: (P,) the pairs of different classes, most boxes first; `judged` counts the
    boxes on whose image the detected class is judged, where it is an error.
    """

    right: np.ndarray
    nothing: np.ndarray
    true: np.ndarray
    detected: np.ndarray
    boxes: np.ndarray
    judged: np.ndarray


def confusions(annotations: AnnotationTable, predictions: Predictions, judged: Judged) -> Confusions:
    """Counts all boxes."""
    boxes, number = judged.boxes, judged.num_classes
    counted = np.flatnonzero(boxes.counted)
    true, top = boxes.class_index[counted], boxes.top_row[counted]
    detected = np.full(len(counted), -1)
    seen = top >= 0
    detected[seen] = index_of(annotations.category_ids, predictions.category_ids[top[seen]])
    is_judged = np.zeros(len(predictions) + 1, bool)
    is_judged[judged.rows] = True
    wrong = seen & (detected != true)
    pair, where = np.unique(true[wrong] * number + detected[wrong], return_inverse=True)
    count = np.bincount(where, minlength=len(pair))
    order = np.argsort(-count, kind="stable")
    return Confusions(
        right=np.bincount(true[seen & (detected == true)], minlength=number),
        nothing=np.bincount(true[~seen], minlength=number),
        true=(pair // number)[order],
        detected=(pair % number)[order],
        boxes=count[order],
        judged=np.bincount(where, is_judged[top[wrong]], len(pair)).astype(np.int64)[order],
    )
