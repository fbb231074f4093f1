"""A tiny LVIS + ImageNet-LVIS pair: coloured rectangles on grey, in the real layout and formats."""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.annotations.json_reader import read_annotations
from datasets.annotations.table import AnnotationTable

# Names, ids with a gap, and how many of the training images show each.
CLASSES = (("red_square", 1, "f"), ("green_square", 2, "c"), ("blue_square", 5, "r"))
COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 5: (0, 0, 255)}


def categories(image_counts: bool = True) -> list[dict]:
    """The `categories` of an LVIS file."""
    counts = {1: 9, 2: 5, 5: 1}
    entries = []
    for name, identity, frequency in CLASSES:
        entry = {
            "id": identity,
            "name": name,
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "frequency": frequency,
        }
        entries.append(entry | ({"image_count": counts[identity]} if image_counts else {}))
    return entries


def draw(path: Path, size: tuple[int, int], boxes: list[tuple[list[float], int]]) -> None:
    """A PNG of (height, width) with a filled rectangle for every ([x, y, w, h], category id)."""
    pixels = np.full((*size, 3), 128, np.uint8)
    for (x, y, w, h), identity in boxes:
        pixels[int(y) : int(y + h), int(x) : int(x + w)] = COLOURS[identity]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def detection_content(count: int, split: str, first_id: int = 1) -> tuple[dict, dict[str, list]]:
    """(LVIS JSON content, file -> boxes): image i shows red; every second one green; the last one blue."""
    images, annotations, drawn = [], [], {}
    for number in range(count):
        identity = first_id + number
        name = f"{split}2017/{identity:012d}.png"
        boxes = [([10.0 + number, 8.0, 20.0, 16.0], 1)]
        if number % 2:
            boxes.append(([40.0, 30.0, 12.0, 14.0], 2))
        if number == count - 1:
            boxes.append(([4.0, 40.0, 16.0, 8.0], 5))
        shown = {c for _, c in boxes}
        images.append(
            {
                "id": identity,
                "height": 60,
                "width": 80,
                "coco_url": f"http://images.cocodataset.org/{name}",
                "neg_category_ids": [c for _, c, _ in CLASSES if c not in shown],
                "not_exhaustive_category_ids": [],
            }
        )
        for xywh, category in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": identity,
                    "category_id": category,
                    "bbox": xywh,
                    "area": xywh[2] * xywh[3],
                    "segmentation": [[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]],
                }
            )
        drawn[name] = boxes
    return {"images": images, "annotations": annotations, "categories": categories()}, drawn


def table_of(content: dict, name: str) -> AnnotationTable:
    """JSON content as read from a file of this name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(json.dumps(content))
        return read_annotations(path)


def judged_lists(table: AnnotationTable) -> list[list[int]]:
    """The judged list of each image; empty where none is stated."""
    return [table.judged[row].tolist() if row >= 0 else [] for row in table.judged_list.tolist()]


def write_detection(root: Path, split: str, count: int, first_id: int = 1) -> Path:
    """Writes one split below `root`/lvis_v1 and returns its JSON's path."""
    content, drawn = detection_content(count, split, first_id)
    for name, boxes in drawn.items():
        draw(root / "lvis_v1" / name, (60, 80), boxes)
    path = root / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_image_level(root: Path, count: int) -> Path:
    """Writes `root`/imagenet-lvis with images of all classes in turn and returns its JSON's path."""
    images = []
    for number in range(count):
        name, identity, _ = CLASSES[number % len(CLASSES)]
        file_name = f"{name}/{number}.png"
        size = (40 + number, 50)
        draw(root / "imagenet-lvis" / "images" / file_name, size, [([12.0, 10.0, 20.0, 20.0], identity)])
        images.append(
            {
                "id": number + 1,
                "file_name": file_name,
                "pos_category_ids": [identity],
                "width": 50,
                "height": size[0],
            }
        )
    content = {"images": images, "annotations": [], "categories": categories()}
    path = root / "imagenet-lvis" / "imagenet_lvis_image_info.json"
    path.write_text(json.dumps(content))
    return path


def write_all(root: Path, train: int = 9, val: int = 5, image_level: int = 7) -> Path:
    """The whole data folder; returns `root`."""
    write_detection(root, "train", train)
    write_detection(root, "val", val, first_id=100)
    write_image_level(root, image_level)
    return root
