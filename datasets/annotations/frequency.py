"""How often classes occur: LVIS's groups r, c, f, and the counts they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.json_schema import read_box_ids, read_categories
from datasets.annotations.table import count_images
from util.errors import UserError
from util.logging import get_logger

# LVIS: rare classes are in at most 10 training images, common ones in at most 100.
RARE, COMMON = 10, 100


def frequency_of(image_count: int, rare: int = RARE, common: int = COMMON) -> str:
    """'r', 'c' or 'f' by the number of training images that show a class."""
    return "r" if image_count <= rare else "c" if image_count <= common else "f"


def count_classes(
    path: Path, cuts: tuple[int, int] = (RARE, COMMON), *, new_frequency: bool = False
) -> list[dict[str, Any]]:
    """The categories of a file with `image_count`, `instance_count` and `frequency`, the rest as it was.

    Boxes of images that the file does not list do not count, as in training. Needs 24 bytes a box.
    cuts: most images of a rare and of a common class.
    new_frequency: replaces a `frequency` that is there; else only missing ones are set.
    Raises UserError naming the file and an entry without integer ids, or an unknown class.
    """
    categories = read_categories(path)
    image_ids, owners, classes = read_box_ids(path)
    ids = np.array([c["id"] for c in categories], np.int64)
    unknown = classes[~np.isin(classes, ids)]
    if len(unknown):
        first = unknown.min()
        raise UserError(
            f"{path}: {np.count_nonzero(unknown == first)} annotations are of unknown class {first}"
        )
    listed = np.isin(owners, image_ids)
    if not listed.all():
        get_logger().warning(
            "%s: %d annotations belong to images that it does not list and are not counted",
            path, np.count_nonzero(~listed),
        )  # fmt: skip
    order = np.argsort(ids)
    column = order[np.searchsorted(ids[order], classes[listed])] if len(ids) else classes
    _, image_index = np.unique(owners[listed], return_inverse=True)
    image_counts = count_images(column, image_index, len(ids)).tolist()
    box_counts = np.bincount(column, minlength=len(ids)).tolist()
    return [
        _counted(*entry, cuts, new_frequency)
        for entry in zip(categories, image_counts, box_counts, strict=True)
    ]


def _counted(
    category: Mapping[str, Any], images: int, boxes: int, cuts: tuple[int, int], new_frequency: bool
) -> dict[str, Any]:
    entry = {**category, "image_count": images, "instance_count": boxes}
    if new_frequency or not entry.get("frequency"):
        entry["frequency"] = frequency_of(images, *cuts)
    return entry
