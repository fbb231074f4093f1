"""An image-level tree (Detic's format) in memory, and its captions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from util.errors import UserError

JSON_NAME = "imagenet_lvis_image_info.json"


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

    Raises UserError for an absent or unreadable JSON, an image that does not decode, or no images.
    """
    path = root / JSON_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda c: c["id"])
        images = content["images"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not readable as Detic's image-level JSON ({error}).") from error
    index = {c["id"]: i for i, c in enumerate(categories)}
    by_class: dict[int, list[str]] = {}
    for image in images:
        if image["pos_category_ids"][0] not in index:
            raise UserError(
                f"{path}: {image['file_name']} is of the unknown class {image['pos_category_ids'][0]}."
            )
        by_class.setdefault(index[image["pos_category_ids"][0]], []).append(image["file_name"])
    if not by_class:
        raise UserError(f"{path}: lists no images.")
    train, other = [], []
    for label in sorted(by_class):
        names = [by_class[label][i] for i in rng.permutation(len(by_class[label]))]
        # One image at least stays in training.
        aside = min(len(names) - 1, round(held_out * len(names)))
        other += [(name, label) for name in names[:aside]]
        train += [(name, label) for name in names[aside:]]
    folder = root / "images"
    return ImageLevelTree(
        tuple(c["name"] for c in categories),
        _read_all(folder, train, short_side),
        _read_all(folder, other, short_side),
    )


def _read_all(folder: Path, listed: Sequence[tuple[str, int]], short_side: int) -> Labelled:
    images = tuple(_read(folder / name, short_side) for name, _ in listed)
    return Labelled(images, np.array([label for _, label in listed], dtype=np.int64))


def _read(path: Path, short_side: int) -> Image.Image:
    try:
        with Image.open(path) as file:
            file.draft("RGB", (short_side, short_side))
            image = file.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not readable as an image ({error}).") from error
    scale = short_side / min(image.size)
    if scale < 1:
        image = image.resize([max(1, round(s * scale)) for s in image.size], Image.Resampling.BILINEAR)
    return image
