"""What a model says of one image. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from inference.drawing import LabelledBox, draw_boxes
from inference.inputs import read_image
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

    def labelled_boxes(self) -> list[LabelledBox]:
        """The detections as `draw_boxes` takes them."""
        columns = self.boxes_xyxy.tolist(), self.names, self.scores.tolist()
        return [LabelledBox(tuple(box), name, score) for box, name, score in zip(*columns, strict=True)]

    def draw(self, image: Image.Image | np.ndarray | None = None, *, min_side: int = 480) -> Image.Image:
        """The image with the detections drawn on it.

        image:    the upright RGB image, as PIL or (H, W, 3) uint8; None reads `file`.
        min_side: a smaller short side is enlarged by an integer first, so that labels can be read.
        Raises UserError for an image of another size, and where there is neither image nor file.
        """
        if image is None:
            if not self.file:
                raise UserError("this prediction knows no file to draw on: draw(image)")
            image = read_image(self.file)[0]
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        if (image.height, image.width) != self.size:
            (height, width), own = self.size, f"{image.width}x{image.height}"
            raise UserError(f"the image to draw on is {own}, the predicted one was {width}x{height}")
        return draw_boxes(image, self.labelled_boxes(), min_side=min_side)

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
