"""Detections as columns: from memory, from results files, from what an evaluation has written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from datasets.annotations.json_stream import read_list
from util.errors import UserError
from util.files import atomic_write

# One detection in a file: ids of the dataset, box XYXY in pixels as the model gave it.
ROW = np.dtype([("image_id", "<i8"), ("category_id", "<i8"), ("score", "<f4"), ("box_xyxy", "<f4", (4,))])

# Arrays of an .npz: kinds of number, shape behind the first axis.
_COLUMNS = {"image_id": ("iu", ()), "category_id": ("iu", ()), "score": ("iuf", ()), "bbox": ("iuf", (4,))}
# Entries of a JSON that are written at a time.
_AT_ONCE = 50_000


@dataclass(frozen=True)
class Predictions:
    """M detections; their order within an image decides between equal scores.

    image_ids, category_ids: (M,) int64 ids of the dataset.
    scores: (M,) float32 or float64.
    boxes:  (M, 4) float32 or float64 pixels: XYXY where `corners`, else XYWH.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    corners: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    def boxes_xywh(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, 4) float64 pixels of some rows, or of all."""
        boxes = self.boxes[rows].astype(np.float64)
        if self.corners:
            boxes[:, 2:] -= boxes[:, :2]
        return boxes

    @classmethod
    def from_rows(cls, rows: np.ndarray) -> Predictions:
        """From an array of ROW, without a copy."""
        return cls(rows["image_id"], rows["category_id"], rows["score"], rows["box_xyxy"], corners=True)

    @classmethod
    def from_results(cls, results: Sequence[Mapping[str, Any]], first: int = 0) -> Predictions:
        """From the results format of LVIS and COCO: dicts with image_id, category_id, bbox (xywh) and score.

        Raises UserError naming the first entry that is not of this form; `first` is the number of the first.
        """
        try:
            ids = np.array([(r["image_id"], r["category_id"]) for r in results]).reshape(-1, 2)
            if len(ids) and ids.dtype.kind != "i":
                raise TypeError("ids are not integers")
            return cls(
                image_ids=ids[:, 0].astype(np.int64),
                category_ids=ids[:, 1].astype(np.int64),
                scores=np.array([r["score"] for r in results], dtype=np.float64),
                boxes=np.array([r["bbox"] for r in results], dtype=np.float64).reshape(len(results), 4),
            )
        except (KeyError, TypeError, ValueError):
            position = next((i for i, r in enumerate(results) if not _well_formed(r)), 0)
        raise UserError(
            f"prediction number {first + position} ({str(results[position])[:100]}) is not of the form "
            "image_id (integer), category_id (integer), bbox [x, y, width, height], score"
        )

    @classmethod
    def join(cls, parts: Sequence[Predictions]) -> Predictions:
        """One after the other; at least one, all of one box format."""
        names = ("image_ids", "category_ids", "scores", "boxes")
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return cls(*columns, corners=parts[0].corners)

    def to_results(self, rows: slice = slice(None)) -> list[dict[str, Any]]:
        """The results format; numbers in full precision, so that reading them back changes nothing."""
        scores = self.scores[rows].astype(np.float64)
        columns = (self.image_ids[rows], self.category_ids[rows], self.boxes_xywh(rows), scores)
        names = ("image_id", "category_id", "bbox", "score")
        return [
            dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)
        ]


def read_predictions(path: str | Path) -> Predictions:
    """A results JSON; the `predictions.npy` of an evaluation; or an `.npz` with the columns of the JSON.

    The `.npz` holds image_id (M,), category_id (M,), score (M,) and bbox (M, 4) xywh.
    Raises UserError for a file that is missing, ends early or is of another form.
    """
    path = Path(path)
    if path.suffix in (".npy", ".npz") and path.is_file():
        try:
            return _from_npy(path) if path.suffix == ".npy" else _from_npz(path)
        except (ValueError, EOFError, OSError, BadZipFile) as error:
            raise UserError(f"{path}: is not a complete {path.suffix} file ({error})") from None
    try:
        return _from_json(path)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None


def write_results_json(path: str | Path, predictions: Predictions) -> None:
    """Writes the results format, for the evaluation server or `tools/evaluate_predictions.py`."""
    with atomic_write(path, durable=False) as file:
        file.write("[")
        for begin in range(0, len(predictions), _AT_ONCE):
            part = json.dumps(predictions.to_results(slice(begin, begin + _AT_ONCE)))[1:-1]
            file.write(f"{', ' if begin else ''}{part}")
        file.write("]")


def _from_npy(path: Path) -> Predictions:
    rows = np.load(path, allow_pickle=False, mmap_mode="r")
    if rows.dtype != ROW or rows.ndim != 1:
        raise UserError(f"{path}: holds no predictions (an array of {rows.dtype} of shape {rows.shape})")
    return Predictions.from_rows(rows)


def _from_npz(path: Path) -> Predictions:
    with np.load(path, allow_pickle=False) as content:
        columns = {name: content[name] for name in content.files}
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise UserError(f"{path}: has no array {missing[0]!r} (needs {', '.join(_COLUMNS)})")
    count = len(columns["score"])
    for name, (kinds, shape) in _COLUMNS.items():
        column = columns[name]
        if column.dtype.kind not in kinds or column.shape != (count, *shape):
            raise UserError(
                f"{path}: {name!r} is {column.dtype} of shape {column.shape}, not "
                f"{'integers' if kinds == 'iu' else 'numbers'} of shape {(count, *shape)}"
            )
    ids = (columns[name].astype(np.int64) for name in ("image_id", "category_id"))
    return Predictions(*ids, columns["score"].astype(np.float64), columns["bbox"].astype(np.float64))


def _from_json(path: Path) -> Predictions:
    parts = [Predictions.from_results([])]
    for piece in read_list(path):
        parts.append(Predictions.from_results(piece, sum(map(len, parts))))
    return Predictions.join(parts)


def _well_formed(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    box, score = entry.get("bbox"), entry.get("score")
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    ids = all(isinstance(entry.get(key), int) for key in ("image_id", "category_id"))
    return ids and numbers and isinstance(score, int | float)
