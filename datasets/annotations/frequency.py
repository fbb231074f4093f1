"""How often classes occur: LVIS's groups r, c, f, and the counts they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from datasets.annotations.cache import open_annotations
from datasets.annotations.categories import Category, ClassTable, Frequency
from datasets.annotations.json_schema import read_categories
from datasets.annotations.table import AnnotationTable, count_images

# LVIS: rare classes are in at most 10 training images, common ones in at most 100.
RARE, COMMON = 10, 100


def frequency_of(image_count: int, rare: int = RARE, common: int = COMMON) -> str:
    """'r', 'c' or 'f' by the number of training images that show a class."""
    return "r" if image_count <= rare else "c" if image_count <= common else "f"


def group_of(frequency: str, image_count: int | None) -> str:
    """The group that a file says, else that of the training images; '' where neither is known."""
    return frequency or ("" if image_count is None else frequency_of(image_count))


def with_frequencies(categories: Iterable[Category]) -> tuple[Category, ...]:
    """The categories of training data; those without a `frequency` get the group of their `image_count`."""
    return tuple(_known_as(c, group_of(c.frequency, c.image_count), c.image_count) for c in categories)


def as_in_training(categories: Iterable[Category], classes: ClassTable) -> tuple[Category, ...]:
    """The categories of evaluated data, with the training images of the classes of the same name.

    A `frequency` that the evaluated file states stays; otherwise it is the one in training.
    """
    known = zip(classes.frequencies, classes.image_counts, strict=True)
    by_name = dict(zip(classes.names, known, strict=True))
    found = ((c, *by_name.get(c.name, ("", c.image_count))) for c in categories)
    return tuple(_known_as(c, c.frequency or frequency, count) for c, frequency, count in found)


def _known_as(category: Category, frequency: str, image_count: int | None) -> Category:
    return replace(category, frequency=cast(Frequency, frequency), image_count=image_count)


def recounted(table: AnnotationTable) -> AnnotationTable:
    """The table with the `image_count` of its own images, whatever its file says."""
    counts = count_images(table.category_index, table.image_index, len(table.categories)).tolist()
    categories = zip(table.categories, counts, strict=True)
    return replace(table, categories=tuple(replace(c, image_count=n) for c, n in categories))


def count_classes(
    path: Path, cuts: tuple[int, int] = (RARE, COMMON), *, new_frequency: bool = False
) -> list[dict[str, Any]]:
    """The categories of a file with `image_count`, `instance_count` and `frequency`, the rest as it was.

    cuts: most images of a rare and of a common class.
    new_frequency: replaces a `frequency` that is there; else only missing ones are set.
    Counts the boxes that training uses, and raises UserError as reading them does (`json_reader`).
    """
    table = open_annotations(path)
    num_images = count_images(table.category_index, table.image_index, len(table.categories)).tolist()
    num_boxes = np.bincount(table.category_index, minlength=len(table.categories)).tolist()
    counts = dict(zip(table.category_ids.tolist(), zip(num_images, num_boxes, strict=True), strict=True))
    categories = []
    for category in read_categories(path):
        # Roboflow's root is no class.
        images, boxes = counts.get(category["id"], (0, 0))
        entry = {**category, "image_count": images, "instance_count": boxes}
        if new_frequency or not entry.get("frequency"):
            entry["frequency"] = frequency_of(images, *cuts)
        categories.append(entry)
    return categories
