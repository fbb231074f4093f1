"""How often classes occur: LVIS's groups r, c, f, and the counts they are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from util.errors import UserError

# LVIS: rare classes are in at most 10 training pictures, common ones in at most 100.
RARE, COMMON = 10, 100


def frequency_of(image_count: int, rare: int = RARE, common: int = COMMON) -> str:
    """'r', 'c' or 'f' by the number of training pictures that show a class."""
    return "r" if image_count <= rare else "c" if image_count <= common else "f"


@dataclass
class ClassCounts:
    """Pictures and boxes of each category id."""

    boxes: Counter[int] = field(default_factory=Counter)
    _pairs: set[tuple[int, int]] = field(default_factory=set)

    def add(self, annotation: Mapping[str, Any]) -> None:
        """Counts one entry of `annotations`, which has both ids."""
        category = annotation["category_id"]
        self.boxes[category] += 1
        self._pairs.add((category, annotation["image_id"]))

    @property
    def pictures(self) -> Counter[int]:
        """Category id -> pictures with at least one box of it."""
        return Counter(category for category, _ in self._pairs)


def class_of(annotation: Any, path: Path) -> int:
    """The category id of an entry of `annotations`. Raises UserError where it or the picture's is missing."""
    ids = [annotation.get(key) for key in ("category_id", "image_id")] if isinstance(annotation, dict) else []
    if not ids or not all(isinstance(i, int) for i in ids):
        raise UserError(f"{path}: annotation {str(annotation)[:80]} has no integer category_id and image_id")
    return ids[0]


def counted(
    categories: Iterable[Mapping[str, Any]],
    counts: ClassCounts,
    cuts: tuple[int, int] = (RARE, COMMON),
    *,
    new_frequency: bool = False,
) -> list[dict[str, Any]]:
    """The categories with `image_count`, `instance_count` and `frequency`, everything else as it was.

    cuts: most pictures of a rare and of a common class.
    new_frequency: replaces a `frequency` that is there; else only missing ones are set.
    """
    pictures = counts.pictures
    found = []
    for category in categories:
        images, instances = pictures[category["id"]], counts.boxes[category["id"]]
        entry = {**category, "image_count": images, "instance_count": instances}
        if new_frequency or not entry.get("frequency"):
            entry["frequency"] = frequency_of(images, *cuts)
        found.append(entry)
    return found
