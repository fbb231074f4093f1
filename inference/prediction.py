"""What a model says of one image. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from util.errors import UserError
from util.optional import require
from util.pixels import Size


@dataclass(frozen=True, eq=False)
class Prediction:
    """The N detections of one image, best first.

    names:      the class of each.
    scores:     (N,) float32, 0..1.
    boxes_xyxy: (N, 4) float32, pixels of the upright image: an EXIF orientation is applied.
    labels:     (N,) int64, the class's index among the model's classes.
    size:       (height, width) of the upright image.
    file:       where the image came from, '' for one from memory.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    size: Size
    file: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: np.ndarray) -> Prediction:
        """The detections that a boolean mask (N,) or an array of indices picks."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        names = tuple(self.names[row] for row in rows)
        return Prediction(
            names, self.scores[rows], self.boxes_xyxy[rows], self.labels[rows], self.size, self.file
        )

    def to_supervision(self) -> Any:
        """`supervision.Detections`, with the names under `data["class_name"]`.

        Raises UserError where supervision is not installed.
        """
        supervision = require("supervision", "supervision")
        return supervision.Detections(
            xyxy=self.boxes_xyxy,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )


def make_prediction(
    class_names: tuple[str, ...],
    scores: np.ndarray,
    labels: np.ndarray,
    boxes_xyxy: np.ndarray,
    size: Size,
) -> Prediction:
    """What a network computed for one image, checked.

    Raises UserError for a score or box that is not finite: the weights or the precision are at fault.
    """
    for what, values in (("score", scores), ("box", boxes_xyxy)):
        if not np.isfinite(values).all():
            raise UserError(
                f"the model gave a {what} that is not finite: its weights or precision are at fault"
            )
    return Prediction(
        names=tuple(class_names[label] for label in labels.tolist()),
        scores=scores.astype(np.float32, copy=False),
        boxes_xyxy=boxes_xyxy.astype(np.float32, copy=False),
        labels=labels.astype(np.int64, copy=False),
        size=size,
    )
