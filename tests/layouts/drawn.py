"""A small random data set, drawn once, which the writers of this package put down as each tool does."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.annotations.table import AnnotationTable
from datasets.images.reader import ImageFolder

CLASSES = ("cup", "blue kite", "Urn")
SPLITS = ("train", "val")

Box = tuple[str, float, float, float, float]
"""(class name, x, y, width, height) in pixels."""


@dataclass(frozen=True)
class Drawn:
    """An image. stem: of its file's name.  pixels: (height, width, 3) uint8, of noise."""

    stem: str
    split: str
    pixels: np.ndarray
    boxes: tuple[Box, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[:2]

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels).save(path)
        return path


@functools.cache
def drawn() -> tuple[Drawn, ...]:
    """Four images for training and three for validation, with whole pixels for corners; one without boxes.

    The last class has boxes in validation only.
    """
    rng = np.random.default_rng(7)
    images = []
    for number in range(7):
        split = "train" if number < 4 else "val"
        height, width = (int(n) for n in rng.integers(24, 64, 2))
        boxes = []
        for _ in range(0 if number == 1 else 1 + number % 3):
            x, y = int(rng.integers(1, width - 8)), int(rng.integers(1, height - 8))
            w, h = int(rng.integers(4, width - x)), int(rng.integers(4, height - y))
            boxes.append((CLASSES[int(rng.integers(2))], x, y, w, h))
        if number == 6:
            boxes.append((CLASSES[2], 0, 0, width, height))
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        images.append(Drawn(f"frame_{number:06d}", split, pixels, tuple(boxes)))
    return tuple(images)


def of_split(split: str | None) -> list[Drawn]:
    """The images of a split, of both for None."""
    return [image for image in drawn() if split in (None, image.split)]


def as_read(table: AnnotationTable, images: ImageFolder) -> dict[bytes, list[Box]]:
    """The pixels of every image, as its file name leads to them, and its boxes, rounded."""
    found = {}
    for index in range(len(table)):
        rows = table.rows(index)
        names = [table.categories[c].name for c in table.category_index[rows]]
        boxes = table.boxes_xywh[rows].round(3).tolist()
        pixels = images.read(table.file_names[index], table.size(index))
        found[pixels.tobytes()] = sorted((name, *box) for name, box in zip(names, boxes, strict=True))
    return found


def as_drawn(split: str | None) -> dict[bytes, list[Box]]:
    """What `as_read` should give."""
    return {image.pixels.tobytes(): sorted(image.boxes) for image in of_split(split)}
