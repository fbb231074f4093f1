"""Annotations as columns: numpy arrays that workers share, no object per box.

I images in ascending order of their id, N boxes grouped by image in the order of the file, K categories
in ascending order of their id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from datasets.annotations.categories import Category
from datasets.columns import PackedStrings, Ragged, offsets_of
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
    judged:          L distinct ascending lists of category indices (`labelled_category_ids`): classes that
                     were looked for in an image, so that each is annotated there or absent.
    judged_list:     (I,) int32: the row of `judged` for each image; -1 where the file states none.
    federated:       False where no image has `neg_category_ids` or a judged list, as in COCO: every class is
        annotated everywhere.
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
    judged: Ragged
    judged_list: np.ndarray
    federated: bool
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def from_boxes(
        cls,
        name: str,
        categories: Sequence[Category],
        file_names: Sequence[str],
        sizes: ArrayLike,
        boxes_xywh: ArrayLike,
        image_index: ArrayLike,
        category_index: ArrayLike,
    ) -> AnnotationTable:
        """The table of a format that has nothing but boxes: exhaustively annotated, without crowds.

        sizes: (I, 2) height, width; 0 if unknown.  boxes_xywh: (N, 4) pixels, in any order.
        image_index: (N,) 0..I-1.  category_index: (N,) 0..K-1.
        Ids of images and annotations become 1, 2, ...; categories get the `image_count` that they lack.
        """
        image_index = np.asarray(image_index, np.int64).reshape(-1)
        order = np.argsort(image_index, kind="stable")
        boxes_xywh = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)[order]
        category_index = np.asarray(category_index, np.int32).reshape(-1)[order]
        number, count = len(file_names), len(boxes_xywh)
        no_ids = Ragged(np.zeros(0, np.int32), np.zeros(number + 1, np.int64))
        return cls(
            name=name,
            categories=with_image_counts(categories, category_index, image_index[order]),
            image_ids=np.arange(1, number + 1),
            sizes=np.asarray(sizes, np.int32).reshape(-1, 2),
            file_names=PackedStrings.pack(list(file_names)),
            box_offsets=offsets_of(np.bincount(image_index, minlength=number)),
            boxes_xywh=boxes_xywh,
            areas=boxes_xywh[:, 2] * boxes_xywh[:, 3],
            category_index=category_index,
            annotation_ids=np.arange(1, count + 1),
            ignore=np.zeros(count, bool),
            crowd=np.zeros(count, bool),
            negatives=no_ids,
            not_exhaustive=no_ids,
            positives=no_ids,
            judged=Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64)),
            judged_list=np.full(number, -1, np.int32),
            federated=False,
        )

    def without(self, image_ids: Collection[int]) -> AnnotationTable:
        """The table without these images, their boxes and lists; itself where none of them is in it."""
        keep = ~np.isin(self.image_ids, list(image_ids))
        return self if keep.all() else self.select(keep)

    def select(self, keep: np.ndarray) -> AnnotationTable:
        """The images where `keep`, (I,) bool, is True, with their boxes and lists."""
        boxes = keep[self.image_index]
        per_box = ("boxes_xywh", "areas", "category_index", "annotation_ids", "ignore", "crowd")
        lists = ("negatives", "not_exhaustive", "positives")
        return replace(
            self,
            image_ids=self.image_ids[keep],
            sizes=self.sizes[keep],
            file_names=PackedStrings.pack([self.file_names[i] for i in np.flatnonzero(keep).tolist()]),
            box_offsets=offsets_of(np.diff(self.box_offsets)[keep]),
            judged_list=self.judged_list[keep],
            **{name: getattr(self, name)[boxes] for name in per_box},
            **{name: getattr(self, name).select(keep) for name in lists},
        )

    @property
    def category_ids(self) -> np.ndarray:
        """(K,) int64, ascending."""
        return np.array([c.id for c in self.categories], dtype=np.int64)

    @property
    def image_index(self) -> np.ndarray:
        """(N,) int64: the image (0..I-1) that each box belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.box_offsets))

    def with_judged(self, category_index: ArrayLike) -> AnnotationTable:
        """The table where these classes were looked for in every image that has no judged list of its own."""
        listed = np.unique(np.asarray(category_index, np.int32))
        values = np.concatenate((self.judged.values, listed))
        return replace(
            self,
            judged=Ragged(values, np.append(self.judged.offsets, len(values))),
            judged_list=np.where(self.judged_list < 0, len(self.judged), self.judged_list).astype(np.int32),
            federated=True,
        )

    def report_warnings(self) -> None:
        """Warns of what is odd about the file."""
        for warning in self.warnings:
            get_logger().warning("%s: %s", self.name, warning)

    def rows(self, image_index: int) -> slice:
        """The rows of image 0..I-1 in the box columns."""
        return slice(int(self.box_offsets[image_index]), int(self.box_offsets[image_index + 1]))

    def size(self, image_index: int) -> tuple[int, int]:
        """(height, width) of image 0..I-1 by the file, (0, 0) if it does not say."""
        return int(self.sizes[image_index, 0]), int(self.sizes[image_index, 1])


def count_images(category_index: np.ndarray, image_index: np.ndarray, num_categories: int) -> np.ndarray:
    """(num_categories,) int64: in how many images each category has a box."""
    pairs = np.unique(image_index.astype(np.int64) * num_categories + category_index)
    return np.bincount(pairs % num_categories, minlength=num_categories)


def with_image_counts(
    categories: Sequence[Category], category_index: np.ndarray, image_index: np.ndarray
) -> tuple[Category, ...]:
    """The categories; those without an `image_count` get it from the boxes."""
    if all(c.image_count is not None for c in categories):
        return tuple(categories)
    counts = count_images(category_index, image_index, len(categories))
    return tuple(
        replace(c, image_count=int(n)) if c.image_count is None else c
        for c, n in zip(categories, counts, strict=True)
    )
