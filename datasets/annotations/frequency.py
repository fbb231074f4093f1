"""How often classes occur: LVIS's groups r, c, f, and the counts they are made from."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.json_errors import is_text
from util.errors import UserError

# LVIS: rare classes are in at most 10 training images, common ones in at most 100.
RARE, COMMON = 10, 100


def frequency_of(image_count: int, rare: int = RARE, common: int = COMMON) -> str:
    """'r', 'c' or 'f' by the number of training images that show a class."""
    return "r" if image_count <= rare else "c" if image_count <= common else "f"


@dataclass
class ClassCounts:
    """Counts images and boxes of each category id; 16 bytes a box.

    A box counts where its image is listed, before it or after, as in training.
    """

    _classes: array = field(default_factory=lambda: array("q"))
    _owners: array = field(default_factory=lambda: array("q"))
    _listed: array = field(default_factory=lambda: array("q"))

    def list_image(self, image: Mapping[str, Any]) -> None:
        """An entry of `images`; one without an integer id lists nothing."""
        if _is_id(image.get("id")):
            self._listed.append(image["id"])

    def add(self, annotation: Mapping[str, Any]) -> None:
        """An entry of `annotations`, which has both ids."""
        self._classes.append(annotation["category_id"])
        self._owners.append(annotation["image_id"])

    def _counted(self) -> np.ndarray:
        """(2, boxes) int64: classes and images of the boxes that count."""
        pairs = np.array((self._classes, self._owners), np.int64)
        return pairs[:, np.isin(pairs[1], np.array(self._listed, np.int64))]

    @property
    def all_boxes(self) -> Counter[int]:
        """Category id -> boxes, those of unlisted images among them."""
        return Counter(self._classes)

    @property
    def boxes(self) -> Counter[int]:
        """Category id -> boxes."""
        return Counter(self._counted()[0].tolist())

    @property
    def images(self) -> Counter[int]:
        """Category id -> images with at least one box of it."""
        return Counter(np.unique(self._counted(), axis=1)[0].tolist())


def class_of(annotation: Any, path: Path) -> int:
    """The category id of an entry of `annotations`. Raises UserError where it or the image's is missing."""
    ids = [annotation.get(key) for key in ("category_id", "image_id")] if isinstance(annotation, dict) else []
    if not ids or not all(map(_is_id, ids)):
        raise UserError(f"{path}: annotation {str(annotation)[:80]} has no integer category_id and image_id")
    return ids[0]


def check_category(category: Any, path: Path) -> dict[str, Any]:
    """The entry of `categories` itself. Raises UserError where it lacks an integer id or a name."""
    if not isinstance(category, dict) or not _is_id(category.get("id")) or not is_text(category.get("name")):
        raise UserError(f"{path}: category {str(category)[:80]!r} has no integer id and name")
    return category


def _is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def counted(
    categories: Iterable[Mapping[str, Any]],
    counts: ClassCounts,
    cuts: tuple[int, int] = (RARE, COMMON),
    *,
    new_frequency: bool = False,
) -> list[dict[str, Any]]:
    """The categories with `image_count`, `instance_count` and `frequency`, everything else as it was.

    cuts: most images of a rare and of a common class.
    new_frequency: replaces a `frequency` that is there; else only missing ones are set.
    """
    image_counts, box_counts = counts.images, counts.boxes
    found = []
    for category in categories:
        images, instances = image_counts[category["id"]], box_counts[category["id"]]
        entry = {**category, "image_count": images, "instance_count": instances}
        if new_frequency or not entry.get("frequency"):
            entry["frequency"] = frequency_of(images, *cuts)
        found.append(entry)
    return found
