"""Annotations as columns: numpy arrays that workers share, no object per box.

I images in ascending order of their id, N boxes grouped by image in the order of the file, K categories
in ascending order of their id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.annotations.categories import Category
from datasets.columns import PackedStrings, Ragged
from util.logging import get_logger


@dataclass(frozen=True)
class AnnotationTable:
    """One annotation file (LVIS, COCO or image-level), without its polygons.

    name:            the file's name, for messages.
    categories:      K entries, ascending id.
    image_ids:       (I,) int64, ascending.
    sizes:           (I, 2) int32 (height, width); 0 where the file does not say.
    file_names:      I names relative to the image folder.
    box_offsets:     (I + 1,) int64: boxes of image i are rows box_offsets[i] : box_offsets[i + 1].
    boxes_xywh:      (N, 4) float64, pixels, exactly as in the file (evaluation needs them unclipped).
    areas:           (N,) float64: the file's `area`, which in LVIS is the mask's; width x height where
        absent.
    category_index:  (N,) int32 into `categories`.
    annotation_ids:  (N,) int64.
    ignore, crowd:   (N,) bool: the file's `ignore` and `iscrowd`.
    negatives, not_exhaustive, positives: category indices by image (`neg_category_ids`,
                     `not_exhaustive_category_ids`, `pos_category_ids`).
    federated:       False where no image has `neg_category_ids`, as in COCO: every class is annotated
        everywhere.
    warnings:         what is odd about the file, a sentence each.
    """

    name: str
    categories: tuple[Category, ...]
    image_ids: np.ndarray
    sizes: np.ndarray
    file_names: PackedStrings
    box_offsets: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    category_index: np.ndarray
    annotation_ids: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray
    negatives: Ragged
    not_exhaustive: Ragged
    positives: Ragged
    federated: bool
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def category_ids(self) -> np.ndarray:
        """(K,) int64, ascending."""
        return np.array([c.id for c in self.categories], dtype=np.int64)

    @property
    def image_index(self) -> np.ndarray:
        """(N,) int64: the image (0..I-1) that each box belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.box_offsets))

    def report_warnings(self) -> None:
        """Warns of what is odd about the file."""
        for warning in self.warnings:
            get_logger().warning("%s: %s", self.name, warning)

    def rows(self, image: int) -> slice:
        """The rows of image 0..I-1 in the box columns."""
        return slice(int(self.box_offsets[image]), int(self.box_offsets[image + 1]))

    def size(self, image: int) -> tuple[int, int]:
        """(height, width) by the file, (0, 0) where it does not say."""
        return int(self.sizes[image, 0]), int(self.sizes[image, 1])


def count_images(category_index: np.ndarray, image_index: np.ndarray, categories: int) -> np.ndarray:
    """(categories,) int64: in how many images each category has a box."""
    pairs = np.unique(image_index.astype(np.int64) * categories + category_index)
    return np.bincount(pairs % categories, minlength=categories)
