"""Which predictions take part in an evaluation, in the order in which they choose their boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.grouping import positions
from datasets.evaluation.predictions import Predictions
from util.errors import UserError
from util.logging import get_logger

# Detections that are looked at together, or those of one image if it has more.
_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class DetectionBatch:
    """n detections of some images, in order of image, then of descending score, then as given.

    rows:       (n,) rows of the predictions, an index array or a slice.
    image:    (n,) int64 0..I-1, position in the annotations.
    category:   (n,) int64 0..K-1, -1 for a category that the annotations do not list.
    scores:     (n,) float64.
    boxes_xywh: (n, 4) float64.
    sized:      (n,) bool: the box has an area, neither 0 nor infinite.
    """

    rows: np.ndarray | slice
    image: np.ndarray
    category: np.ndarray
    scores: np.ndarray
    boxes_xywh: np.ndarray
    sized: np.ndarray


def check_predictions(annotations: AnnotationTable, predictions: Predictions) -> np.ndarray:
    """(M,) int64: the image (0..I-1) of each prediction.

    Raises UserError for an image that the annotations do not list and for a score that is no finite number:
    neither leaves any number that could be trusted.
    """
    image = positions(annotations.image_ids, predictions.image_ids)
    if len(image) and image.min() < 0:
        unknown = np.flatnonzero(image < 0)
        raise UserError(
            f"{len(unknown)} of {len(predictions)} predictions are of images that {annotations.name} "
            f"does not list (first: image_id {predictions.image_ids[unknown[0]]})"
        )
    finite = np.isfinite(predictions.scores)
    if not finite.all():
        odd = np.flatnonzero(~finite)
        raise UserError(
            f"{len(odd)} of {len(predictions)} predictions have a score that is not a finite number (first: "
            f"{predictions.scores[odd[0]]}, image_id {predictions.image_ids[odd[0]]}, category_id "
            f"{predictions.category_ids[odd[0]]})"
        )
    return image


def iter_batches(
    annotations: AnnotationTable, predictions: Predictions, sizeless: str
) -> Iterator[DetectionBatch]:
    """All predictions, image by image, a bounded number at a time.

    Those of unknown categories, and those whose box has no size (or is not made of finite numbers), are
    counted in the log. sizeless: what happens to the latter, in words.
    Raises UserError as `check_predictions` does.
    """
    image = check_predictions(annotations, predictions)
    if not len(predictions):
        get_logger().warning("there are no predictions at all: every box of %s is missed", annotations.name)
    order = None
    if (image[1:] < image[:-1]).any():
        order = np.argsort(image, kind="stable")
    ends = np.cumsum(np.bincount(image, minlength=len(annotations)))
    unknown = _Counter("are of categories that the annotations do not list and are left out")
    unsized = _Counter(f"have a box without size and {sizeless}")
    for begin, end in _whole_images(ends):
        rows = slice(begin, end) if order is None else order[begin:end]
        chunk = _chunk(annotations, predictions, image, rows)
        unknown.add(chunk.category < 0, chunk.rows)
        unsized.add(~chunk.sized, chunk.rows)
        yield chunk
    for counter in (unknown, unsized):
        counter.report(predictions)


def _whole_images(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Bounds of chunks. ends: (I,), for each image how many predictions it and those before it have."""
    begin, total = 0, int(ends[-1]) if len(ends) else 0
    while True:
        last = np.searchsorted(ends, begin + _AT_ONCE, "right") - 1
        end = int(ends[last]) if last >= 0 else 0
        if end <= begin:
            # More than that of one image.
            end = int(ends[np.searchsorted(ends, begin, "right")]) if begin < total else total
        yield begin, end
        begin = end
        if begin == total:
            return


def _chunk(annotations: AnnotationTable, predictions: Predictions, image: np.ndarray, rows) -> DetectionBatch:
    scores, here = predictions.scores[rows].astype(np.float64), image[rows]
    if ((scores[1:] > scores[:-1]) & (here[1:] == here[:-1])).any():
        by_score = np.lexsort((-scores, here))
        rows = np.arange(rows.start, rows.stop)[by_score] if isinstance(rows, slice) else rows[by_score]
        scores = scores[by_score]
    category = positions(annotations.category_ids, predictions.category_ids[rows])
    boxes_xywh = predictions.boxes_xywh(rows)
    areas = boxes_xywh[:, 2] * boxes_xywh[:, 3]
    return DetectionBatch(rows, here, category, scores, boxes_xywh, (areas > 0) & np.isfinite(areas))


class _Counter:
    """Predictions with a fault, over all chunks."""

    def __init__(self, what: str) -> None:
        self.what, self.count, self.first = what, 0, 0

    def add(self, faulty: np.ndarray, rows: np.ndarray | slice) -> None:
        if faulty.any():
            place = int(faulty.argmax())
            first = rows.start + place if isinstance(rows, slice) else int(rows[place])
            self.first = first if not self.count else self.first
            self.count += int(np.count_nonzero(faulty))

    def report(self, predictions: Predictions) -> None:
        if self.count:
            get_logger().warning(
                "%d of %d predictions %s (first: image_id %d, category_id %d)",
                self.count,
                len(predictions),
                self.what,
                predictions.image_ids[self.first],
                predictions.category_ids[self.first],
            )
