"""Data sets with many faults, for what the doctor says of them."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)
_NAMES = ("anchor", "basket", "candle", "dragon", "engine", "falcon", "guitar", "hammer")


def noise(path: Path, seed: int, size: tuple[int, int] = SIZE, **options) -> Path:
    """An image of (height, width) that is like no other. options: of Pillow's `save`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.NEAREST).save(path, **options)
    return path


def coco(root: Path, split: str, images: int, classes: int = 8, boxes: int = 3) -> dict:
    """A healthy COCO split below `root`, its images drawn; returns its content, for `write`.

    boxes: of each image. Classes take turns, so that each has some where there are enough boxes.
    """
    rng = np.random.default_rng(len(split))
    content: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": c + 1, "name": f"{_NAMES[c % 8]}{c // 8 or ''}"} for c in range(classes)],
    }
    height, width = SIZE
    for number in range(images):
        name = f"{split}_{number:05d}.png"
        noise(root / split / name, hash_of(split, number))
        content["images"].append({"id": number + 1, "file_name": name, "height": height, "width": width})
        for _ in range(boxes):
            identity = len(content["annotations"]) + 1
            x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
            w, h = rng.uniform(4, width / 2), rng.uniform(4, height / 2)
            entry = {
                "id": identity,
                "image_id": number + 1,
                "category_id": identity % classes + 1,
                "bbox": [round(v, 2) for v in (x, y, w, h)],
                "iscrowd": 0,
            }
            content["annotations"].append(entry | {"area": entry["bbox"][2] * entry["bbox"][3]})
    return content


def hash_of(split: str, number: int) -> int:
    """A seed that no other image has."""
    return number * 1000 + sum(map(ord, split))


def write(root: Path, split: str, content: dict) -> Path:
    """Writes what `coco` returned, changed or not."""
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def a_thousand_faults(root: Path) -> Path:
    """A COCO set with a thousand faults of twelve kinds."""
    train, val = coco(root, "train", 420, classes=30), coco(root, "val", 60, classes=30)
    files = [root / "train" / entry["file_name"] for entry in train["images"]]
    annotations = train["annotations"]
    for path in files[:150]:  # missing
        path.unlink()
    for path in files[150:210]:  # damaged
        path.write_bytes(path.read_bytes()[:90])
    for number, path in enumerate(files[210:250]):  # of another size
        noise(path, hash_of("other", number), (SIZE[1], SIZE[0]))
    for number in range(20):  # in training and in validation
        shutil.copy(root / "val" / val["images"][number]["file_name"], files[300 + number])
    for entry in annotations[:120]:  # outside
        entry["bbox"] = [500.0, 3.0, 20.0, 20.0]
    for number, entry in enumerate(annotations[120:420]):  # beyond the edge
        entry["bbox"] = [40.0, 30.0, 26.0 + number, 12.0]
    for entry in annotations[420:520]:  # without size
        entry["bbox"] = [5.0, 5.0, 0.0, 8.0]
    for entry in annotations[520:600]:  # ids twice
        entry["id"] -= entry["id"] % 2
    for entry in annotations[600:660]:  # of an image that is not there
        entry["image_id"] += 10_000
    for entry in annotations[660:700]:  # not of the form
        entry["bbox"] = [1.0, 2.0, 3.0]
    for number in range(30):  # classes without boxes, and names that differ in case only
        train["categories"].append({"id": 1000 + number, "name": f"Unused {number}"})
    for number in range(30):
        train["categories"].append({"id": 2000 + number, "name": f"unused_{number}"})
    write(root, "train", train)
    write(root, "val", val)
    return root
