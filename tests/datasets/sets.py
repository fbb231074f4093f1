"""Tiny data sets with class lists of their own, in COCO's, LVIS's and YOLO's form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.annotations.table import AnnotationTable
from tests.datasets.tiny import table_of

SIZE = (60, 80)
# Where the boxes of an image lie, [x, y, w, h], one after another.
PLACES = ([5.0, 6.0, 20.0, 16.0], [40.0, 8.0, 24.0, 14.0], [10.0, 34.0, 18.0, 20.0], [44.0, 32.0, 30.0, 22.0])
Classes = Sequence[str | Mapping[str, Any]]


def coco(
    classes: Classes, images: Sequence[Sequence[str]], lists: Sequence[Mapping[str, Sequence[str]]] = ()
) -> dict:
    """JSON content. classes: names, or entries of `categories`; ids are 1, 2, ... if they have none.

    images: the names of the boxes' classes, for each image.
    lists: for each image, key (`neg_category_ids`, ...) -> class names.
    """
    entries = [{"name": c} if isinstance(c, str) else dict(c) for c in classes]
    categories = [{"id": number + 1, **entry} for number, entry in enumerate(entries)]
    id_of = {entry["name"]: entry["id"] for entry in categories}
    annotations: list[dict] = []
    for number, names in enumerate(images):
        for name, box in zip(names, PLACES, strict=False):
            entry = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": id_of[name]}
            annotations.append(entry | {"bbox": box, "area": box[2] * box[3]})
    rows = [
        {"id": number + 1, "file_name": f"{number + 1}.png", "height": SIZE[0], "width": SIZE[1]}
        for number in range(len(images))
    ]
    for row, own in zip(rows, lists, strict=False):
        row |= {key: [id_of[name] for name in names] for key, names in own.items()}
    return {"images": rows, "annotations": annotations, "categories": categories}


def table(
    name: str, classes: Classes, images: Sequence[Sequence[str]], lists: Sequence = ()
) -> AnnotationTable:
    """The content as read."""
    return table_of(coco(classes, images, lists), name)


def write_coco(folder: Path, split: str, content: dict) -> Path:
    """`split`.json, and an image for each entry, in the folder; returns the folder."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.json").write_text(json.dumps(content))
    for row in content["images"]:
        boxes = [a for a in content["annotations"] if a["image_id"] == row["id"]]
        draw(folder / split / row["file_name"], [a["bbox"] for a in boxes], [a["category_id"] for a in boxes])
    return folder


def write_yolo(folder: Path, split: str, classes: Sequence[str], images: Sequence[Sequence[str]]) -> Path:
    """`data.yaml`, `images/SPLIT` and `labels/SPLIT`; returns the folder."""
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(f"names: {list(classes)}\ntrain: images/train\nval: images/val\n")
    for number, names in enumerate(images):
        rows, numbers = [], [classes.index(name) for name in names]
        for label, (x, y, w, h) in zip(numbers, PLACES, strict=False):
            rows.append(f"{label} {(x + w / 2) / 80} {(y + h / 2) / 60} {w / 80} {h / 60}")
        draw(folder / "images" / split / f"{number + 1}.png", PLACES[: len(names)], numbers)
        (folder / "labels" / split / f"{number + 1}.txt").write_text("\n".join(rows))
    return folder


def draw(path: Path, boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> None:
    """Rectangles on grey, a colour for each label."""
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    for (x, y, w, h), label in zip(boxes, labels, strict=False):
        pixels[int(y) : int(y + h), int(x) : int(x + w)] = (40 * label % 256, 90 * label % 256, 200)
    Image.fromarray(pixels).save(path)
