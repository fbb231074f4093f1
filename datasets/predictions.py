"""Detections as columns: from memory, from a results JSON, from the files that ranks stream to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.json_file import load_json
from util.errors import UserError

# One detection in a file: ids of the dataset, box XYXY in pixels as the model gave it.
ROW = np.dtype([("image_id", "<i8"), ("category_id", "<i8"), ("score", "<f4"), ("box_xyxy", "<f4", (4,))])


@dataclass(frozen=True)
class Predictions:
    """M detections; their order within a picture decides between equal scores.

    image_ids, category_ids: (M,) int64 ids of the dataset.
    scores:     (M,) float64.
    boxes_xywh: (M, 4) float64 pixels.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes_xywh: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def from_rows(cls, rows: np.ndarray) -> Predictions:
        """From an array of ROW."""
        corners = rows["box_xyxy"].astype(np.float64)
        boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
        return cls(rows["image_id"], rows["category_id"], rows["score"].astype(np.float64), boxes)

    @classmethod
    def from_results(cls, results: Sequence[Mapping[str, Any]]) -> Predictions:
        """From LVIS's results format: dicts with image_id, category_id, bbox (xywh) and score.

        Raises UserError naming the first entry that is not of this form.
        """
        try:
            ids = np.array([(r["image_id"], r["category_id"]) for r in results]).reshape(-1, 2)
            if len(ids) and ids.dtype.kind != "i":
                raise TypeError("ids are not integers")
            return cls(
                image_ids=ids[:, 0].astype(np.int64),
                category_ids=ids[:, 1].astype(np.int64),
                scores=np.array([r["score"] for r in results], dtype=np.float64),
                boxes_xywh=np.array([r["bbox"] for r in results], dtype=np.float64).reshape(len(results), 4),
            )
        except (KeyError, TypeError, ValueError):
            position = next((i for i, r in enumerate(results) if not _well_formed(r)), 0)
        raise UserError(
            f"prediction number {position} ({str(results[position])[:100]}) is not of the form "
            "image_id (integer), category_id (integer), bbox [x, y, width, height], score"
        )

    def to_results(self) -> list[dict[str, Any]]:
        """LVIS's results format; numbers in full precision, so that reading them back changes nothing."""
        columns = (self.image_ids, self.category_ids, self.boxes_xywh, self.scores)
        names = ("image_id", "category_id", "bbox", "score")
        return [
            dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)
        ]


def read_predictions(path: str | Path) -> Predictions:
    """A results JSON, or a `predictions.npy` written by an evaluation.

    Raises UserError for a file that is missing, half-written or of another form.
    """
    path = Path(path)
    if path.suffix == ".npy" and path.is_file():
        try:
            rows = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{path}: is not a complete .npy file ({error})") from None
        if rows.dtype != ROW:
            raise UserError(f"{path}: holds no predictions")
        return Predictions.from_rows(rows)
    content = load_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: not a results file (a list of predictions), but a {type(content).__name__}")
    try:
        return Predictions.from_results(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def write_results_json(path: str | Path, predictions: Predictions) -> None:
    """Writes LVIS's results format, for the evaluation server or `tools/evaluate_predictions.py`."""
    Path(path).write_text(json.dumps(predictions.to_results()))


def _well_formed(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    box, score = entry.get("bbox"), entry.get("score")
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    ids = all(isinstance(entry.get(key), int) for key in ("image_id", "category_id"))
    return ids and numbers and isinstance(score, int | float)
