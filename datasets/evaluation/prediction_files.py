"""Predictions stream to a file per rank while evaluation runs, and become one file at its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.evaluation.grouping import run_starts
from datasets.evaluation.predictions import ROW
from util.errors import UserError

MERGED = "predictions.npy"
# Rows of a rank's file that are looked at together.
_AT_ONCE = 1 << 16


class PredictionStream:
    """Appends the detections of images to the file of one rank.

    folder: seen by all ranks. Memory does not grow with the detections: they are on the disk.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.images: set[int] = set()
        self._file = rank_file(folder, rank).open("wb")

    def append(
        self, image_id: int, category_ids: np.ndarray, scores: np.ndarray, boxes_xyxy: np.ndarray
    ) -> None:
        """One image: (k,) ids, (k,) scores, (k, 4) pixels. ValueError for one that came before."""
        if image_id in self.images:
            raise ValueError(f"image {image_id} was evaluated before")
        self.images.add(image_id)
        rows = np.empty(len(scores), dtype=ROW)
        rows["image_id"] = image_id
        rows["category_id"] = category_ids
        rows["score"] = scores
        rows["box_xyxy"] = boxes_xyxy
        self._file.write(rows.tobytes())

    def close(self) -> None:
        """Everything is in the file."""
        self._file.close()


def rank_file(folder: Path, rank: int) -> Path:
    """Where a rank streams to."""
    return folder / f"predictions.rank{rank}.bin"


def merge(folder: Path, ranks: int) -> Path:
    """Joins the ranks' files, in order of image, into `predictions.npy`, and removes them.

    Within an image the order stays, so that the result does not depend on the number of ranks. Images are
    copied one by one. Raises UserError for a file that is missing or ends early and for an image that
    two ranks evaluated.
    """
    files = [rank_file(folder, rank) for rank in range(ranks)]
    parts = [_images(file, number) for number, file in enumerate(files)]
    ids, file_number, first, count = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(ids, kind="stable")
    if (twice := _twice(ids[order])) is not None:
        raise UserError(
            f"{folder}: image {twice} was evaluated more than once: is the loader sharded by rank?"
        )
    merged, temporary = folder / MERGED, folder / f".{MERGED}.tmp"
    header = {
        "descr": np.lib.format.dtype_to_descr(ROW),
        "fortran_order": False,
        "shape": (int(count.sum()),),
    }
    sources = [file.open("rb") for file in files]
    with temporary.open("wb") as target:
        np.lib.format.write_array_header_1_0(target, header)
        for place in order.tolist():
            source = sources[file_number[place]]
            source.seek(first[place] * ROW.itemsize)
            target.write(source.read(count[place] * ROW.itemsize))
    for source in sources:
        source.close()
    temporary.replace(merged)
    for file in files:
        file.unlink()
    return merged


def _images(file: Path, number: int) -> tuple[np.ndarray, ...]:
    """(image ids, file number, first row, rows) of each run of one image in a rank's file."""
    if not file.is_file():
        raise UserError(f"{file}: absent; all processes must share one output folder")
    size = file.stat().st_size
    if size % ROW.itemsize:
        raise UserError(f"{file}: ends early (after {size} bytes): is the disk full?")
    total = size // ROW.itemsize
    ids, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for begin in range(0, total, _AT_ONCE):
        part = np.fromfile(file, dtype=ROW, count=_AT_ONCE, offset=begin * ROW.itemsize)["image_id"]
        starts = run_starts(part)
        if begin and part[0] == ids[-1][-1]:
            starts = starts[1:]
        ids.append(part[starts])
        first.append(starts + begin)
    ids, first = np.concatenate(ids), np.concatenate(first)
    return ids, np.full(len(ids), number), first, np.diff(np.append(first, total))


def _twice(ids: np.ndarray) -> int | None:
    repeated = np.flatnonzero(ids[1:] == ids[:-1])
    return int(ids[repeated[0]]) if len(repeated) else None
