"""Predictions in bounded batches of whole images, sorted as box evaluation wants them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.grouping import index_of
from datasets.evaluation.predictions import Predictions
from util.errors import UserError
from util.logging import get_logger

# Detections per batch; a single image with more is one batch.
_BATCH_SIZE = 1 << 18


@dataclass(frozen=True)
class DetectionBatch:
    """All n detections of some images, sorted by image, then descending score; ties keep their order.

    rows:           (n,) rows of the predictions, an index array or a slice.
    image_index:    (n,) int64 0..I-1, into the annotations' images.
    category_index: (n,) int64 0..K-1, -1 for a category that the annotations do not list.
    scores:         (n,) float64.
    boxes_xywh:     (n, 4) float64 pixels.
    has_area:       (n,) bool: the area is positive and finite.
    """

    rows: np.ndarray | slice
    image_index: np.ndarray
    category_index: np.ndarray
    scores: np.ndarray
    boxes_xywh: np.ndarray
    has_area: np.ndarray

    def prediction_rows(self, index: np.ndarray) -> np.ndarray:
        """(k,) int64: the rows of the predictions of some of the n detections."""
        return index + self.rows.start if isinstance(self.rows, slice) else self.rows[index]


def iter_batches(
    annotations: AnnotationTable, predictions: Predictions, no_area_outcome: str
) -> Iterator[DetectionBatch]:
    """All predictions, image by image, a bounded number at a time.

    Predictions of unknown categories, and those without area, are counted in the log.
    no_area_outcome: what becomes of the latter, for that message.
    Raises UserError for an image that the annotations do not list and for a score that is not finite:
    either would make every metric meaningless.
    """
    image_index = _check(annotations, predictions)
    if not len(predictions):
        get_logger().warning("no predictions: every box of %s counts as missed", annotations.name)
    order = None
    if (image_index[1:] < image_index[:-1]).any():
        order = np.argsort(image_index, kind="stable")
    ends = np.cumsum(np.bincount(image_index, minlength=len(annotations)))
    unknown = _FaultCounter("are of categories that the annotations do not list, and are dropped")
    no_area = _FaultCounter(f"have a box without area, and {no_area_outcome}")
    for begin, end in _whole_images(ends):
        rows = slice(begin, end) if order is None else order[begin:end]
        batch = _batch(annotations, predictions, image_index, rows)
        unknown.add(batch.category_index < 0, batch.rows)
        no_area.add(~batch.has_area, batch.rows)
        yield batch
    for counter in (unknown, no_area):
        counter.report(predictions)


def _check(annotations: AnnotationTable, predictions: Predictions) -> np.ndarray:
    """(M,) int64 0..I-1: the image of each prediction."""
    image_index = index_of(annotations.image_ids, predictions.image_ids)
    if len(image_index) and image_index.min() < 0:
        unknown = np.flatnonzero(image_index < 0)
        raise UserError(
            f"{len(unknown)} of {len(predictions)} predictions are of images that {annotations.name} "
            f"does not list (first: image_id {predictions.image_ids[unknown[0]]})"
        )
    finite = np.isfinite(predictions.scores)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise UserError(
            f"{len(bad)} of {len(predictions)} predictions have a score that is not finite (first: "
            f"{predictions.scores[bad[0]]}, image_id {predictions.image_ids[bad[0]]}, category_id "
            f"{predictions.category_ids[bad[0]]})"
        )
    return image_index


def _whole_images(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """(begin, end) of batches. ends: (I,), the running total of predictions by image."""
    begin, total = 0, int(ends[-1]) if len(ends) else 0
    while True:
        last = np.searchsorted(ends, begin + _BATCH_SIZE, "right") - 1
        end = int(ends[last]) if last >= 0 else 0
        if end <= begin:
            # The next image alone exceeds the batch size.
            end = int(ends[np.searchsorted(ends, begin, "right")]) if begin < total else total
        yield begin, end
        begin = end
        if begin == total:
            return


def _batch(
    annotations: AnnotationTable, predictions: Predictions, image_index: np.ndarray, rows: slice | np.ndarray
) -> DetectionBatch:
    scores, image_index = predictions.scores[rows].astype(np.float64), image_index[rows]
    if ((scores[1:] > scores[:-1]) & (image_index[1:] == image_index[:-1])).any():
        by_score = np.lexsort((-scores, image_index))
        rows = np.arange(rows.start, rows.stop)[by_score] if isinstance(rows, slice) else rows[by_score]
        scores = scores[by_score]
    category_index = index_of(annotations.category_ids, predictions.category_ids[rows])
    boxes_xywh = predictions.boxes_xywh(rows)
    areas = boxes_xywh[:, 2] * boxes_xywh[:, 3]
    has_area = (areas > 0) & np.isfinite(areas)
    return DetectionBatch(rows, image_index, category_index, scores, boxes_xywh, has_area)


class _FaultCounter:
    """Counts predictions with one kind of fault over all batches."""

    def __init__(self, fault: str) -> None:
        self.fault, self.count, self.first_row = fault, 0, 0

    def add(self, faulty: np.ndarray, rows: np.ndarray | slice) -> None:
        if faulty.any():
            first = int(faulty.argmax())
            row = rows.start + first if isinstance(rows, slice) else int(rows[first])
            self.first_row = row if not self.count else self.first_row
            self.count += int(np.count_nonzero(faulty))

    def report(self, predictions: Predictions) -> None:
        if self.count:
            get_logger().warning(
                "%d of %d predictions %s (first: image_id %d, category_id %d)",
                self.count,
                len(predictions),
                self.fault,
                predictions.image_ids[self.first_row],
                predictions.category_ids[self.first_row],
            )
