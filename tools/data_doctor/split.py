"""A split as it is in its files. Unlike the readers of the project it goes on, whatever is wrong."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.discovery import SplitPaths
from datasets.annotations.json_errors import is_text
from datasets.annotations.json_stream import read_entries
from datasets.annotations.yolo import YoloSplit, in_pixels, open_yolo, parse_labels
from datasets.images.header import DamagedError, inspect_file


@dataclass
class RawSplit:
    """name: 'train' or 'val'.  path: the JSON, or YOLO's file or folder.

    categories: as they are.  image_ids, file_names, sizes (height, width): of the images, in order.
    annotation_ids, owners (image id), classes (category id), boxes_xywh (4 numbers each): of the annotations
        whose ids are integers and whose box is four numbers.
    malformed: messages about entries that are not as they should be.
    """

    name: str
    path: Path
    categories: list[Mapping[str, Any]] = field(default_factory=list)
    image_ids: array = field(default_factory=lambda: array("q"))
    file_names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    annotation_ids: array = field(default_factory=lambda: array("q"))
    owners: array = field(default_factory=lambda: array("q"))
    classes: array = field(default_factory=lambda: array("q"))
    boxes_xywh: array = field(default_factory=lambda: array("d"))
    malformed: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) float64."""
        return np.array(self.boxes_xywh).reshape(-1, 4)

    def images_by_class(self) -> Counter:
        """Category id -> images that show it."""
        return Counter(c for c, _ in set(zip(self.classes, self.owners, strict=True)))


def read_split(name: str, paths: SplitPaths) -> tuple[RawSplit, YoloSplit | None]:
    """Raises UserError where the files cannot be read at all."""
    split = RawSplit(name, paths.annotations)
    if paths.annotations.suffix == ".json":
        _read_json(split)
        return split, None
    yolo = open_yolo(paths.annotations, name)
    _read_yolo(split, yolo)
    return split, yolo


def _read_json(split: RawSplit) -> None:
    readers = {"categories": _add_category, "images": _add_image, "annotations": _add_annotation}
    for entry in read_entries(split.path):
        if not entry.listed:
            continue
        if entry.key in readers:
            try:
                readers[entry.key](split, entry.value)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                split.malformed.append(f"{entry.key}: {entry.text[:120]}")


def _add_category(split: RawSplit, entry: Mapping[str, Any]) -> None:
    identity = entry.get("id")
    # Texts and the like are a finding of their own.
    if isinstance(identity, int | list | dict):
        _integer(identity)
    if not is_text(entry.get("name")):
        raise ValueError("no name")
    split.categories.append(entry)


def _add_image(split: RawSplit, entry: Mapping[str, Any]) -> None:
    identity = _integer(entry["id"])
    name = entry.get("file_name") or "/".join(entry["coco_url"].split("/")[-2:])
    if not is_text(name):
        raise ValueError("no name")
    size = (int(entry.get("height") or 0), int(entry.get("width") or 0))
    split.image_ids.append(identity)
    split.file_names.append(name)
    split.sizes.append(size)


def _add_annotation(split: RawSplit, entry: Mapping[str, Any]) -> None:
    ids = [_integer(entry[key]) for key in ("id", "image_id", "category_id")]
    box = [float(v) for v in entry["bbox"] if not isinstance(v, str)]
    if len(box) != 4 or not np.isfinite(box).all():
        raise ValueError("not a box")
    for column, value in zip((split.annotation_ids, split.owners, split.classes), ids, strict=True):
        column.append(value)
    split.boxes_xywh.extend(box)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not an integer of 64 bits")
    return value


def _read_yolo(split: RawSplit, yolo: YoloSplit) -> None:
    split.categories = [{"id": i, "name": name} for i, name in enumerate(yolo.names)]
    for number, image in enumerate(yolo.images, start=1):
        rows, faults = parse_labels(yolo.label_file(image), yolo.names, keypoints=yolo.keypoints)
        split.malformed += faults
        split.image_ids.append(number)
        split.file_names.append(image)
        # Sizes are not said: boxes are shares of whatever the image is.
        split.sizes.append((0, 0))
        try:
            height, width = inspect_file(yolo.root / image)
        except (DamagedError, OSError):  # told by the checks of the images
            continue
        for label, *box in rows:
            split.annotation_ids.append(len(split.annotation_ids) + 1)
            split.owners.append(number)
            split.classes.append(label)
            split.boxes_xywh.extend(in_pixels(box, height, width))
