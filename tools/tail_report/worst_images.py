"""The images on which a run does worst, with what is annotated and what was detected."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from datasets.evaluation.error_split import KINDS, kinds_of
from datasets.evaluation.grouping import index_of
from datasets.evaluation.judged import Judged
from datasets.images.preprocess import ImageError
from tools.tail_report.evaluation import Evaluation
from util.logging import get_logger

_LONGEST_SIDE = 720
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class OperatingPoint:
    """The score threshold with the highest F1 over all judged detections, at IoU 0.5."""

    score: float
    precision: float
    recall: float


def operating_point(judged: Judged) -> OperatingPoint:
    """Detections of equal score are taken together."""
    right, false = _right(judged), judged.false(0)
    used = np.flatnonzero(right | false)
    order = used[np.argsort(-judged.scores[used], kind="stable")]
    total = int(judged.num_boxes.sum())
    if not len(order) or not total:
        return OperatingPoint(1.0, 0.0, 0.0)
    tp, chosen = np.cumsum(right[order]), np.arange(1, len(order) + 1)
    last = np.append(judged.scores[order][1:] != judged.scores[order][:-1], True)
    best = int(np.argmax(np.where(last, 2 * tp / (chosen + total), -1)))
    return OperatingPoint(float(judged.scores[order[best]]), tp[best] / chosen[best], tp[best] / total)


def worst_images(evaluation: Evaluation, judged: Judged, number: int) -> dict[str, Any]:
    """The images with the lowest F1 at the operating point; of equal ones those with more errors.

    Boxes are XYWH in pixels of the image file. Without the image file there is no `pixels`.
    """
    point = operating_point(judged)
    shown = judged.scores >= point.score
    right, false = _right(judged) & shown, judged.false(0) & shown
    boxes = judged.boxes
    tp = np.bincount(judged.image_index[right], minlength=judged.num_images)
    fp = np.bincount(judged.image_index[false], minlength=judged.num_images)
    annotated = np.bincount(boxes.image_index[boxes.counted], minlength=judged.num_images)
    errors = fp + annotated - tp
    f1 = 2 * tp / np.maximum(annotated + tp + fp, 1)
    worst = np.lexsort((-errors, f1))
    worst = worst[errors[worst] > 0][:number]
    kinds = kinds_of(judged, 0)
    entries = []
    for image in worst.tolist():
        entry = {
            "image_id": int(evaluation.annotations.image_ids[image]),
            "file": evaluation.annotations.file_names[image],
            "f1": float(f1[image]),
            "missed": int(annotated[image] - tp[image]),
            "false": int(fp[image]),
            "boxes": _boxes_on(evaluation, judged, image, right),
            "detections": _detections_on(evaluation, judged, image, point.score, kinds),
        }
        entries.append(entry | _pixels(evaluation, image))
    if evaluation.images is not None and (lost := [e["file"] for e in entries if "pixels" not in e]):
        get_logger().warning(
            "%s: %d images cannot be read (first: %s); the report shows their boxes alone",
            evaluation.annotations.name,
            len(lost),
            lost[0],
        )
    return {
        "score": point.score,
        "precision": float(point.precision),
        "recall": float(point.recall),
        "images": entries,
    }


def _right(judged: Judged) -> np.ndarray:
    """(D,) bool: true positives at IoU 0.5."""
    right = np.zeros(len(judged.rows), bool)
    right[judged.hits] = judged.true(0)
    return right


def _boxes_on(evaluation: Evaluation, judged: Judged, image: int, right: np.ndarray) -> list[dict[str, Any]]:
    """found: whether a detection above the threshold is right about it."""
    boxes, table = judged.boxes, evaluation.annotations
    here = np.arange(*np.searchsorted(boxes.image_index, (image, image + 1)))
    hits = np.flatnonzero(right & (judged.image_index == image))
    found = set(judged.same_box[hits].tolist())
    return [
        {
            "box": table.boxes_xywh[boxes.rows[g]].round(1).tolist(),
            "name": table.categories[boxes.class_index[g]].name,
            "found": g in found,
        }
        for g in here.tolist()
        if boxes.counted[g]
    ]


def _detections_on(
    evaluation: Evaluation, judged: Judged, image: int, score: float, kinds: np.ndarray
) -> list[dict[str, Any]]:
    """Best first. kind: 'right', one of KINDS, 'ignored', or 'unjudged': of a class not judged here."""
    table, predictions = evaluation.annotations, evaluation.predictions
    right = _right(judged)
    here = np.flatnonzero((judged.image_index == image) & (judged.scores >= score))
    kind_of_row = {
        int(judged.rows[i]): "right" if right[i] else KINDS[kinds[i]] if kinds[i] >= 0 else "ignored"
        for i in here.tolist()
    }
    rows = np.flatnonzero(
        (predictions.image_ids == table.image_ids[image]) & (predictions.scores >= np.float32(score))
    )
    rows = rows[np.argsort(-predictions.scores[rows], kind="stable")]
    categories = index_of(table.category_ids, predictions.category_ids[rows])
    boxes = predictions.boxes_xywh(rows)
    return [
        {
            "box": boxes[n].round(1).tolist(),
            "name": table.categories[category].name,
            "score": round(float(predictions.scores[row]), 4),
            "kind": kind_of_row.get(row, "unjudged"),
        }
        for n, (row, category) in enumerate(zip(rows.tolist(), categories.tolist(), strict=True))
        if category >= 0
    ]


def _pixels(evaluation: Evaluation, image: int) -> dict[str, Any]:
    height, width = evaluation.annotations.size(image)
    if evaluation.images is None:
        return {"width": width, "height": height}
    try:
        pixels = evaluation.images.read(evaluation.annotations.file_names[image])
    except ImageError:
        return {"width": width, "height": height}
    drawn = Image.fromarray(pixels)
    drawn.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "pixels": f"data:image/jpeg;base64,{encoded}",
    }
