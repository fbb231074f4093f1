"""Predictions to files: drawings, JSON, COCO results, YOLO labels, CSV. Needs no torch.

All are written image by image, so memory does not grow with their number. A file is there when all is
written, or not at all; drawings and YOLO labels appear one by one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TextIO, runtime_checkable

import numpy as np

from inference.image_ids import ImageIds
from inference.prediction import Prediction
from inference.sources import DRAWN_IMAGE, DRAWN_VIDEO, Source
from inference.video import VideoWriter
from util.errors import UserError, nearest
from util.files import atomic_write

FORMATS = ("drawn", "json", "coco", "yolo", "csv")


@dataclass(frozen=True)
class Item:
    """An image, or a frame of a video.

    pixels: (H, W, 3) uint8 RGB, upright.  frame: its number, from 0; None for an image.
    seconds: since the video's start.  rate: the video's frames a second.
    """

    source: Source
    pixels: np.ndarray
    frame: int | None = None
    seconds: float = 0.0
    rate: Fraction = Fraction(25)


@runtime_checkable
class Writer(Protocol):
    """One format."""

    def add(self, item: Item, found: Prediction, drawn: Path | None) -> None:
        """drawn: the drawing of this image or video, None if there is none."""
        ...


def parse_formats(text: str) -> tuple[str, ...]:
    """`drawn,coco` -> ("drawn", "coco"). Raises UserError for a word that is no format."""
    formats = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in formats:
        if word not in FORMATS:
            raise UserError(f"format {word!r}: use {', '.join(FORMATS)}.{nearest(word, FORMATS)}")
    if not formats:
        raise UserError(f"format: name at least one of {', '.join(FORMATS)}")
    return formats


class Results:
    """Writes predictions in some of FORMATS below a folder; `with` completes the files, an error drops them.

    ids: for COCO results; None numbers images and classes from 1, and writes the numbers beside the results.
    """

    def __init__(
        self, folder: Path, formats: Sequence[str], class_names: Sequence[str], ids: ImageIds | None = None
    ) -> None:
        self._files = ExitStack()
        self._drawings = Drawings(folder, self._files) if "drawn" in formats else None
        makers: dict[str, Any] = {
            "json": lambda: Entries(folder, self._files),
            "coco": lambda: CocoResults(folder, self._files, class_names, ids),
            "yolo": lambda: YoloLabels(folder, class_names),
            "csv": lambda: CsvRows(folder, self._files),
        }
        self._writers: list[Writer] = [makers[name]() for name in formats if name != "drawn"]

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add(self, item: Item, found: Prediction) -> None:
        """Images in any order; the frames of a video one after the other."""
        drawn = self._drawings.add(item, found) if self._drawings is not None else None
        for writer in self._writers:
            writer.add(item, found, drawn)


class Drawings:
    """NAME.drawn.jpg for an image, NAME.drawn.mp4 for a video."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._video: VideoWriter | None = None
        files.callback(self._close)

    def add(self, item: Item, found: Prediction) -> Path:
        """Returns the drawing's path."""
        drawing = found.draw(item.pixels)
        if item.frame is None:
            path = self._folder / f"{item.source.name}{DRAWN_IMAGE}"
            path.parent.mkdir(parents=True, exist_ok=True)
            # A PNG takes longer than a small network. Full colour resolution keeps the labels sharp.
            drawing.save(path, quality=90, subsampling=0)
            return path
        path = self._folder / f"{item.source.name}{DRAWN_VIDEO}"
        if self._video is None or self._video.path != path:
            self._close()
            self._video = VideoWriter(path, item.rate)
        self._video.add(np.asarray(drawing))
        return path

    def _close(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None


class _JsonList:
    """A list of entries in a file, one a line."""

    def __init__(self, file: TextIO, head: str = "[", tail: str = "]\n") -> None:
        self._file, self._tail = file, tail
        self._separator = f"{head}\n"

    def add(self, entry: Mapping[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(entry))
        self._separator = ",\n"

    def close(self) -> None:
        opening = self._separator if self._separator != ",\n" else "\n"
        self._file.write(opening + self._tail)


def _json_list(files: ExitStack, path: Path) -> _JsonList:
    entries = _JsonList(files.enter_context(atomic_write(path, durable=False)))
    files.push(lambda kind, *_: entries.close() if kind is None else None)
    return entries


class Entries:
    """predictions.json: a list of `file`, `width`, `height`, `drawn` and `detections` (`name`, `score`,
    `box_xyxy` in pixels); a video's entries are its frames, with `frame` and `seconds`."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._entries = _json_list(files, folder / "predictions.json")

    def add(self, item: Item, found: Prediction, drawn: Path | None) -> None:
        """As `Writer.add`."""
        height, width = found.size
        entry = {"file": item.source.path, "width": width, "height": height}
        if item.frame is not None:
            entry |= {"frame": item.frame, "seconds": round(item.seconds, 3)}
        entry["drawn"] = None if drawn is None else str(drawn)
        entry["detections"] = [
            {"name": name, "score": score, "box_xyxy": [round(v, 2) for v in box]}
            for name, score, box in _rows(found)
        ]
        self._entries.add(entry)


class CsvRows:
    """predictions.csv: a row a detection, boxes as XYXY in pixels; `frame` and `seconds` are a video's."""

    COLUMNS = ("file", "width", "height", "frame", "seconds", "name", "score", "x1", "y1", "x2", "y2")

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._csv = csv.writer(files.enter_context(atomic_write(folder / "predictions.csv", durable=False)))
        self._csv.writerow(self.COLUMNS)

    def add(self, item: Item, found: Prediction, drawn: Path | None) -> None:
        """As `Writer.add`."""
        height, width = found.size
        frame = ("", "") if item.frame is None else (item.frame, round(item.seconds, 3))
        for name, score, box in _rows(found):
            values = (round(v, 2) for v in box)
            self._csv.writerow((item.source.path, width, height, *frame, name, score, *values))


class YoloLabels:
    """labels/NAME.txt: class number and box (CXCYWH, 0..1 of the image, clipped to it) of each detection;
    classes.txt names the numbers. Names lose their suffix, as YOLO expects; of images that differ in nothing
    else, the later ones keep it. A video's frames have their number behind its name."""

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._labels = folder / "labels"
        self._used: set[PurePosixPath] = set()
        with atomic_write(folder / "classes.txt", durable=False) as file:
            file.writelines(f"{name}\n" for name in class_names)

    def add(self, item: Item, found: Prediction, drawn: Path | None) -> None:
        """As `Writer.add`."""
        height, width = found.size
        boxes = found.boxes_xyxy.astype(np.float64) / (width, height, width, height)
        corners = boxes.clip(0, 1)
        sides = corners[:, 2:] - corners[:, :2]
        centres = (corners[:, 2:] + corners[:, :2]) / 2
        with atomic_write(self._path(item), durable=False) as file:
            for label, centre, side in zip(found.labels, centres, sides, strict=True):
                if side.min() > 0:
                    values = " ".join(f"{v:.6f}" for v in (*centre, *side))
                    file.write(f"{label} {values}\n")

    def _path(self, item: Item) -> Path:
        name = PurePosixPath(item.source.name)
        if item.frame is not None:
            return self._labels / f"{name}_{item.frame:06d}.txt"
        short = name.with_suffix(".txt")
        path = short if short not in self._used else PurePosixPath(f"{name}.txt")
        self._used.add(path)
        return self._labels / path


class CocoResults:
    """coco_results.json: `image_id`, `category_id`, `bbox` (XYWH in pixels) and `score` of each detection.

    Without `ids` images and classes are numbered from 1, and coco_images.json says which is which.
    """

    def __init__(
        self, folder: Path, files: ExitStack, class_names: Sequence[str], ids: ImageIds | None
    ) -> None:
        self._results = _json_list(files, folder / "coco_results.json")
        self._ids = ids
        self._images: _JsonList | None = None
        self._count = 0
        if ids is not None:
            self._category_ids = [ids.category_ids.get(name) for name in class_names]
            return
        self._category_ids = list(range(1, len(class_names) + 1))
        categories = [{"id": number, "name": name} for number, name in enumerate(class_names, 1)]
        file = files.enter_context(atomic_write(folder / "coco_images.json", durable=False))
        images = _JsonList(file, f'{{"categories": {json.dumps(categories)},\n"images": [', "]}\n")
        files.push(lambda kind, *_: images.close() if kind is None else None)
        self._images = images

    def add(self, item: Item, found: Prediction, drawn: Path | None) -> None:
        """As `Writer.add`. Images and classes that the annotations do not have are left out."""
        image_id = self._image_id(item, found)
        if image_id is None:
            return
        for label, (_, score, (x1, y1, x2, y2)) in zip(found.labels.tolist(), _rows(found), strict=True):
            category_id = self._category_ids[label]
            if category_id is not None:
                bbox = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
                self._results.add(
                    {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}
                )

    def _image_id(self, item: Item, found: Prediction) -> int | None:
        if self._ids is not None:
            return self._ids.find(item.source.path) if item.frame is None else None
        self._count += 1
        name = item.source.name if item.frame is None else f"{item.source.name}#{item.frame}"
        height, width = found.size
        if self._images is not None:
            self._images.add({"id": self._count, "file_name": name, "width": width, "height": height})
        return self._count


def _rows(found: Prediction) -> list[tuple[str, float, list[float]]]:
    """Name, score and XYXY box of each detection, as Python numbers."""
    return list(zip(found.names, found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True))
