"""YOLO's boxes: a text file for each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.annotations.source import SPLIT_NAMES, AnnotationSource, RawAnnotations, refuse_faults
from datasets.annotations.table import AnnotationTable
from datasets.annotations.yolo_labels import LabelReader, in_pixels
from datasets.annotations.yolo_layout import YoloFolder, YoloSplit, find_yolo
from datasets.images.header import DamagedError, inspect_file
from util.errors import UserError
from util.files import path_exists
from util.logging import get_logger


@dataclass(frozen=True)
class YoloSource(AnnotationSource):
    """A split of a YOLO folder. path: its data.yaml or obj.data, or the folder if it has neither."""

    looks_for = "YOLO's data.yaml, obj.data, or labels/ beside images/{split}"
    upright = True
    names_files = True

    @classmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> YoloSource | None:
        found = find_yolo(path) if split in SPLIT_NAMES else None
        if found is None:
            return None
        folder = YoloFolder.open(found)
        if split == "val" and not folder.has_split("val") and folder.has_split("train"):
            return None
        return cls(found, split, (folder.image_root(split),))

    def read(self) -> AnnotationTable:
        """Ids of images are 1, 2, ... in order of name, those of classes 0, 1, ...

        Images without a label file have no boxes. Damaged ones stay, without size and boxes, so that
        training and evaluation name and count them.
        Raises UserError naming the first invalid label line, or the first listed image that does not exist,
        and counting them.
        """
        split = YoloFolder.open(self.path).split(self.split)
        if split.missing:
            raise UserError(
                f"{split.missing[0]} ({len(split.missing)} such lines; the other {len(split.images)} lead to "
                f"images, as {split.images[0]!r:.100})"
            )
        labels = _read_labels(split)
        refuse_faults(labels.faults, "lines")
        if labels.damaged:
            get_logger().warning(
                "%s: %d images are damaged, first: %s",
                split.name,
                len(labels.damaged),
                labels.damaged[0],
            )
        if unlabelled := sum(not path_exists(split.label_file(image)) for image in split.images):
            get_logger().info(
                "%s: %d of %d images have no label file, and so no boxes",
                split.name, unlabelled, len(split.images),
            )  # fmt: skip
        return AnnotationTable.from_boxes(
            split.name,
            split.categories,
            split.images,
            labels.sizes,
            labels.boxes_xywh,
            labels.image_index,
            labels.classes,
        )

    def check(self) -> RawAnnotations:
        split = YoloFolder.open(self.path).split(self.split)
        labels, reader = _read_labels(split), LabelReader(split.names, split.keypoints)
        return RawAnnotations(
            categories=split.categories,
            image_ids=np.arange(len(split.images)),
            file_names=split.images,
            # No size is stated: boxes are fractions of whatever the image is.
            sizes=np.zeros((len(split.images), 2), np.int32),
            annotation_ids=np.arange(1, len(labels.classes) + 1),
            box_image_ids=labels.image_index,
            box_category_ids=np.array(labels.classes, np.int64),
            boxes_xywh=np.array(labels.boxes_xywh).reshape(-1, 4),
            faults=[*split.missing, *labels.faults],
            places=partial(_place_of_box, split, labels.image_index, cache(reader.lines_of_rows)),
        )


def _place_of_box(
    split: YoloSplit, image_index: np.ndarray, lines: Callable[[Path], list[int]], box: int
) -> str:
    """The file and line of box 0..N-1. lines: those of the boxes of a label file."""
    image = int(image_index[box])
    path = split.label_file(split.images[image])
    return f"{path} line {lines(path)[box - int(np.searchsorted(image_index, image))]}"


class _Labels(NamedTuple):
    """sizes: (height, width) of each image, (0, 0) if it is damaged: its boxes are then skipped.
    boxes_xywh: N, pixels.  image_index: (N,) int64.  classes: N numbers.
    faults: a message for each invalid line.  damaged: a message for each damaged image.
    """

    sizes: list[tuple[int, int]]
    boxes_xywh: list[tuple[float, ...]]
    image_index: np.ndarray
    classes: list[int]
    faults: list[str]
    damaged: list[str]


def _read_labels(split: YoloSplit) -> _Labels:
    image_index: list[int] = []
    labels = _Labels([], [], np.zeros(0, np.int64), [], [], [])
    reader = LabelReader(split.names, split.keypoints)
    for index, image in enumerate(split.images):
        rows, faults = reader.read(split.label_file(image))
        labels.faults.extend(faults)
        try:
            height, width = inspect_file(split.root / image).upright
        except (DamagedError, OSError, ValueError) as error:
            labels.damaged.append(f"{image}: {error}")
            labels.sizes.append((0, 0))
            continue
        labels.sizes.append((height, width))
        image_index += [index] * len(rows)
        labels.classes.extend(row[0] for row in rows)
        labels.boxes_xywh.extend(in_pixels(row[1:], height, width) for row in rows)
    labels.faults.extend(reader.doubts())
    return labels._replace(image_index=np.array(image_index, np.int64))
