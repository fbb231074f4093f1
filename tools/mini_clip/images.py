"""An image-level tree (Detic's format) in memory, and its captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.annotations.cache import open_annotations
from datasets.annotations.json_source import IMAGE_LEVEL_JSON
from datasets.images.reader import ImageFolder
from util.errors import UserError


@dataclass(frozen=True)
class Labelled:
    """Images of one split: PIL images and class indices into `ImageLevelTree.names`."""

    images: tuple[Image.Image, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageLevelTree:
    """names: every class of the JSON, also those without images (their names are text too)."""

    names: tuple[str, ...]
    train: Labelled
    held_out: Labelled


def load_tree(root: Path, short_side: int, held_out: float, rng: np.random.Generator) -> ImageLevelTree:
    """Reads the images of `root`, shrunk to `short_side` pixels; `held_out` of each class are set aside.

    Raises UserError for an absent or invalid JSON, an image that does not decode, or no images.
    """
    path = root / IMAGE_LEVEL_JSON
    table = open_annotations(path)
    by_class: dict[int, list[str]] = {}
    for image in np.flatnonzero(table.positives.lengths).tolist():
        by_class.setdefault(int(table.positives[image][0]), []).append(table.file_names[image])
    if not by_class:
        raise UserError(f"{path}: lists no images.")
    train, other = [], []
    for label in sorted(by_class):
        names = [by_class[label][i] for i in rng.permutation(len(by_class[label]))]
        # One image at least stays in training.
        aside = min(len(names) - 1, round(held_out * len(names)))
        other += [(name, label) for name in names[:aside]]
        train += [(name, label) for name in names[aside:]]
    folder = ImageFolder(root / "images")
    return ImageLevelTree(
        tuple(c.name for c in table.categories),
        _read_all(folder, train, short_side),
        _read_all(folder, other, short_side),
    )


def _read_all(folder: ImageFolder, listed: Sequence[tuple[str, int]], short_side: int) -> Labelled:
    images = tuple(_read(folder, name, short_side) for name, _ in listed)
    return Labelled(images, np.array([label for _, label in listed], dtype=np.int64))


def _read(folder: ImageFolder, name: str, short_side: int) -> Image.Image:
    image = Image.fromarray(folder.open(name).decode(at_least=(short_side, short_side)))
    scale = short_side / min(image.size)
    if scale < 1:
        image = image.resize([max(1, round(s * scale)) for s in image.size], Image.Resampling.BILINEAR)
    return image
