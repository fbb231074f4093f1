"""Predictions as columns, and their files: results JSON, .npz, and what an evaluation streams to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from reprlib import Repr
from typing import Any
from zipfile import ZipFile, ZipInfo

import msgspec
import numpy as np

from datasets.annotations.json_errors import Int64, convert, describe_reason
from datasets.annotations.json_stream import read_list
from datasets.evaluation.grouping import run_starts
from util.errors import UserError, first_line
from util.files import atomic_path, atomic_write, writing

# One detection in predictions.npy: dataset ids, and the box as the model gave it, XYXY in pixels.
ROW = np.dtype([("image_id", "<i8"), ("category_id", "<i8"), ("score", "<f4"), ("box_xyxy", "<f4", (4,))])

PREDICTIONS_FILE = "predictions.npy"

# Arrays of an .npz: dtype kinds, shape after the first axis.
_COLUMNS = {"image_id": ("iu", ()), "category_id": ("iu", ()), "score": ("iuf", ()), "bbox": ("iuf", (4,))}
# JSON entries that are written at a time, and rows of a rank's file that are scanned at a time.
_ENTRIES_AT_ONCE = 50_000
_ROWS_AT_ONCE = 1 << 16
# Of an array in a zip: bytes that are looked at, and the largest ratio to the compressed ones.
_LARGE, _MOST_RATIO = 1 << 24, 100
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 40


class _Row(msgspec.Struct, gc=False):
    """An entry of the results format. null stands for NaN, which JSON lacks."""

    image_id: Int64
    category_id: Int64
    bbox: tuple[float | None, float | None, float | None, float | None]
    score: float | None


@dataclass(frozen=True)
class Predictions:
    """N detections; their order within an image breaks ties between equal scores.

    image_ids, category_ids: (N,) int64 dataset ids.
    scores: (N,) float32 or float64.
    boxes:  (N, 4) float32 or float64 pixels: XYXY if `is_xyxy`, else XYWH.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    is_xyxy: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    def boxes_xywh(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, 4) float64 pixels of some rows, or of all.

        XYWH, though IoU needs edges: pycocotools is given XYWH and rounds x + w, and the metrics are to be
        equal to its own to the last digit.
        """
        boxes = self.boxes[rows].astype(np.float64)
        if self.is_xyxy:
            boxes[:, 2:] -= boxes[:, :2]
        return boxes

    @classmethod
    def from_rows(cls, rows: np.ndarray) -> Predictions:
        """From an array of ROW, without copying."""
        return cls(rows["image_id"], rows["category_id"], rows["score"], rows["box_xyxy"], is_xyxy=True)

    @classmethod
    def from_results(cls, results: Sequence[Mapping[str, Any]], first: int = 0) -> Predictions:
        """From the results format of LVIS and COCO: dicts with image_id, category_id, bbox (xywh) and score.

        first: the number of the first entry in its file, for messages.
        Raises UserError for an entry of another form and names the first.
        """
        try:
            rows = convert(results, list[_Row])
        except msgspec.ValidationError:
            raise UserError(_first_fault(results, first)) from None
        ids = [
            np.fromiter(map(attrgetter(key), rows), np.int64, len(rows))
            for key in ("image_id", "category_id")
        ]
        scores = np.array([row.score for row in rows], np.float64)
        boxes = np.array([row.bbox for row in rows], np.float64).reshape(-1, 4)
        return cls(*ids, scores, boxes)

    @classmethod
    def join(cls, parts: Sequence[Predictions]) -> Predictions:
        """Concatenates at least one part; all have the same box format."""
        names = ("image_ids", "category_ids", "scores", "boxes")
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return cls(*columns, is_xyxy=parts[0].is_xyxy)

    def to_results(self, rows: slice = slice(None)) -> list[dict[str, Any]]:
        """The results format, in full precision: reading it back gives the same numbers."""
        scores = self.scores[rows].astype(np.float64)
        columns = (self.image_ids[rows], self.category_ids[rows], self.boxes_xywh(rows), scores)
        names = ("image_id", "category_id", "bbox", "score")
        return [
            dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)
        ]


def read_predictions(path: str | Path) -> Predictions:
    """Reads a results JSON, the `predictions.npy` of an evaluation, or an `.npz` with the JSON's columns.

    The `.npz` holds image_id (N,), category_id (N,), score (N,) and bbox (N, 4) xywh.
    Raises UserError for a file that is missing, truncated or of another form.
    """
    path = Path(path)
    if path.suffix in (".npy", ".npz") and path.is_file():
        try:
            return _from_npy(path) if path.suffix == ".npy" else _from_npz(path)
        except UserError:
            raise
        except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
            raise UserError(f"{path}: not a {path.suffix} file, or truncated ({first_line(error)})") from None
    try:
        return _from_json(path)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None


def write_results_json(path: str | Path, predictions: Predictions) -> None:
    """Writes the results format of LVIS and COCO. Raises UserError where the file cannot be written."""
    with atomic_write(path, durable=False) as file:
        file.write("[")
        for begin in range(0, len(predictions), _ENTRIES_AT_ONCE):
            part = json.dumps(predictions.to_results(slice(begin, begin + _ENTRIES_AT_ONCE)))[1:-1]
            file.write(f"{', ' if begin else ''}{part}")
        file.write("]")


def _from_npy(path: Path) -> Predictions:
    rows = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(rows, np.ndarray):
        raise UserError(f"{path}: not predictions, but a zip of arrays")
    if rows.dtype != ROW or rows.ndim != 1:
        raise UserError(f"{path}: not predictions, but {rows.dtype} of shape {rows.shape}")
    return Predictions.from_rows(rows)


def _from_npz(path: Path) -> Predictions:
    with ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        columns = {
            name: _member(archive, members[f"{name}.npy"], path)
            for name in _COLUMNS
            if f"{name}.npy" in members
        }
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise UserError(f"{path}: array {missing[0]!r} is missing (needs {', '.join(_COLUMNS)})")
    count = columns["score"].size
    for name, (kinds, shape) in _COLUMNS.items():
        column = columns[name]
        if column.dtype.kind not in kinds or column.shape != (count, *shape):
            raise UserError(
                f"{path}: {name!r} is {column.dtype} of shape {column.shape}, not "
                f"{'integers' if kinds == 'iu' else 'numbers'} of shape {(count, *shape)}"
            )
    ids = (columns[name].astype(np.int64) for name in ("image_id", "category_id"))
    return Predictions(*ids, columns["score"].astype(np.float64), columns["bbox"].astype(np.float64))


def _member(archive: ZipFile, info: ZipInfo, path: Path) -> np.ndarray:
    """One array. Few bytes that claim to unpack to many are refused: no predictions repeat themselves so."""
    if info.file_size > _LARGE and info.file_size > _MOST_RATIO * info.compress_size:
        raise UserError(f"{path}: {info.filename} unpacks to {info.file_size:,} bytes, a zip bomb")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _first_fault(results: Sequence[Any], first: int) -> str:
    """A line on the first entry of another form. first: the number of the first entry in its file."""
    for number, entry in enumerate(results, first):
        try:
            convert(entry, _Row)
        except msgspec.ValidationError as error:
            shown = _SHORT.repr(entry)[:100]
            return f"prediction number {number} ({shown}): {describe_reason(entry, error)}"
    raise AssertionError("every entry is of the form")


def _from_json(path: Path) -> Predictions:
    parts = [Predictions.from_results([])]
    for piece in read_list(path):
        parts.append(Predictions.from_results(piece, sum(map(len, parts))))
    return Predictions.join(parts)


class PredictionStream:
    """Appends the detections of images to the file of one rank, so that memory does not grow with them.

    folder: the same for all ranks.
    Whatever writes raises UserError where that is not possible, for example because the disk is full.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.image_ids: set[int] = set()
        self._path = rank_file(folder, rank)
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")

    def append(
        self, image_id: int, category_ids: np.ndarray, scores: np.ndarray, boxes_xyxy: np.ndarray
    ) -> None:
        """Adds one image: (k,) ids, (k,) scores, (k, 4) pixels. ValueError if it was added before."""
        if image_id in self.image_ids:
            raise ValueError(f"image {image_id} was evaluated before")
        self.image_ids.add(image_id)
        rows = np.empty(len(scores), dtype=ROW)
        rows["image_id"] = image_id
        rows["category_id"] = category_ids
        rows["score"] = scores
        rows["box_xyxy"] = boxes_xyxy
        with writing(self._path):
            self._file.write(rows.tobytes())

    def close(self) -> None:
        """Flushes the file and closes it."""
        with writing(self._path):
            self._file.close()


def rank_file(folder: Path, rank: int) -> Path:
    """The file that a rank streams to."""
    return folder / f"predictions.rank{rank}.bin"


def merge_rank_files(folder: Path, world_size: int) -> Path:
    """Joins the ranks' files, sorted by image id, into `predictions.npy`, and removes them.

    The order within an image is kept, so the result does not depend on the number of ranks. Images are copied
    one by one. Raises UserError for a file that is missing or truncated, for an image that two ranks
    evaluated, and where the result cannot be written.
    """
    files = [rank_file(folder, rank) for rank in range(world_size)]
    parts = [_image_runs(file, rank) for rank, file in enumerate(files)]
    image_ids, rank, first, count = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(image_ids, kind="stable")
    sorted_ids = image_ids[order]
    if len(repeated := np.flatnonzero(sorted_ids[1:] == sorted_ids[:-1])):
        raise UserError(
            f"{folder}: image {sorted_ids[repeated[0]]} was evaluated more than once: is the loader sharded "
            "by rank?"
        )
    header = {
        "descr": np.lib.format.dtype_to_descr(ROW),
        "fortran_order": False,
        "shape": (int(count.sum()),),
    }
    merged = folder / PREDICTIONS_FILE
    with writing(merged), ExitStack() as stack:
        sources = [stack.enter_context(file.open("rb")) for file in files]
        temporary = stack.enter_context(atomic_path(merged, durable=False))
        with temporary.open("wb") as target:
            np.lib.format.write_array_header_1_0(target, header)
            for run in order.tolist():
                source = sources[rank[run]]
                source.seek(first[run] * ROW.itemsize)
                target.write(source.read(count[run] * ROW.itemsize))
    for file in files:
        file.unlink()
    return merged


def _image_runs(file: Path, rank: int) -> tuple[np.ndarray, ...]:
    """(image ids, rank, first row, number of rows) of each image in a rank's file."""
    if not file.is_file():
        raise UserError(f"{file}: missing; all processes must share one output folder")
    size = file.stat().st_size
    if size % ROW.itemsize:
        raise UserError(f"{file}: truncated (after {size} bytes): is the disk full?")
    total = size // ROW.itemsize
    image_ids, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for begin in range(0, total, _ROWS_AT_ONCE):
        part = np.fromfile(file, dtype=ROW, count=_ROWS_AT_ONCE, offset=begin * ROW.itemsize)["image_id"]
        starts = run_starts(part)
        if begin and part[0] == image_ids[-1][-1]:
            starts = starts[1:]
        image_ids.append(part[starts])
        first.append(starts + begin)
    image_ids, first = np.concatenate(image_ids), np.concatenate(first)
    return image_ids, np.full(len(image_ids), rank), first, np.diff(np.append(first, total))
