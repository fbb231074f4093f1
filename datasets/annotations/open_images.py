"""Open Images: CSV files of boxes as fractions of the image, and of labels that people verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.open_images_csv import (
    BoxRows,
    VerifiedRows,
    column_values,
    read_boxes,
    read_class_names,
    read_verified,
)
from datasets.annotations.open_images_layout import OpenImagesFiles, find_open_images, images_of
from datasets.annotations.source import SPLIT_NAMES, AnnotationSource, RawAnnotations, refuse_faults
from datasets.annotations.table import AnnotationTable
from datasets.columns import Ragged
from datasets.images.header import DamagedError, inspect_file
from util.errors import UserError
from util.logging import get_logger

# The list of all labels has 20,000, of which the boxes use 601.
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class OpenImagesSource(AnnotationSource):
    """A split of Open Images. path: the data folder."""

    looks_for = "Open Images' {split}-annotations-bbox.csv"

    @classmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> OpenImagesSource | None:
        found = find_open_images(path).get(split) if split in SPLIT_NAMES else None
        return cls(path, split, (path,)) if found else None

    def read(self) -> AnnotationTable:
        """Ids of images are 1, 2, ... in order of name, those of classes 1, 2, ... in order of their list.

        Boxes around a group are crowds, which evaluation ignores. With a file of verified labels, the classes
        that are absent by it are an image's negatives, and nothing is said of the others.
        Raises UserError naming the first invalid row and counting them.
        """
        split = _read(self.path, self.split)
        refuse_faults(split.faults, "rows")
        if split.damaged:
            get_logger().warning("%s: %d damaged images are skipped, first: %s",
                                 split.name, len(split.damaged), split.damaged[0])  # fmt: skip
        rows = split.rows
        order = np.argsort(rows.image_index, kind="stable")
        table = AnnotationTable.from_boxes(
            split.name, split.categories, split.names, split.sizes, split.boxes_xywh, rows.image_index,
            rows.category_index,
        )  # fmt: skip
        group = rows.group[order]
        # Of a class with a group, not every instance has a box of its own.
        grouped = _grouped(rows, len(split.names), len(split.categories))
        table = replace(table, crowd=group, ignore=group, not_exhaustive=grouped)
        if split.negatives is None:
            return table
        return replace(table, negatives=split.negatives, federated=True)

    def check(self) -> RawAnnotations:
        split = _read(self.path, self.split)
        return RawAnnotations(
            categories=split.categories,
            image_ids=np.arange(len(split.names)),
            file_names=split.names,
            sizes=split.sizes,
            annotation_ids=np.arange(1, len(split.rows.lines) + 1),
            box_image_ids=split.rows.image_index,
            box_category_ids=split.rows.category_index + 1,
            boxes_xywh=split.boxes_xywh,
            faults=split.faults,
            places=partial(_place, split),
        )


@dataclass(frozen=True)
class _Split:
    """name, file: for messages.  names: of the images, below the data folder.  sizes: (I, 2) height, width.
    negatives: category indices that are absent in each image; None where nobody said so.
    faults: a message for each invalid row.  damaged: one for each damaged image, which is left out."""

    name: str
    file: Path
    names: Sequence[str]
    sizes: np.ndarray
    categories: tuple[Category, ...]
    rows: BoxRows
    negatives: Ragged | None
    faults: list[str]
    damaged: list[str]

    @property
    def boxes_xywh(self) -> np.ndarray:
        """(N, 4) float64, pixels."""
        height, width = self.sizes[self.rows.image_index].T
        x1, y1, x2, y2 = self.rows.boxes.T
        return np.stack([x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height], 1)


def _place(split: _Split, row: int) -> str:
    return f"{split.file} line {split.rows.lines[row]}"


def _read(path: Path, split: str) -> _Split:
    """Raises UserError where there is no such split any more, or none of its images."""
    parts = find_open_images(path)
    if (files := parts.get(split)) is None:
        raise UserError(f"{path}: has no Open Images files for {split} any more")
    classes = _classes(parts, files)
    index = {label: i for i, label in enumerate(classes)}
    there = sorted(images_of(path, split, files).items())
    images = {stem: i for i, (stem, _) in enumerate(there)}
    rows = read_boxes(files.boxes, images, index)
    verified = read_verified(files.verified, images, index) if files.verified else None
    spoken_of = np.zeros(len(there), bool)
    sizes = np.zeros((len(there), 2), np.int64)
    damaged = []
    for found in (rows, verified):
        spoken_of[found.image_index if found else []] = True
    for image in np.flatnonzero(spoken_of).tolist():
        try:
            sizes[image] = inspect_file(path / there[image][1]).stored
        except (DamagedError, OSError, ValueError) as error:
            damaged.append(f"{there[image][1]}: {error}")
    keep = sizes[:, 0] > 0
    _tell_of_others(path, split, files, rows, verified, spoken_of)
    return _Split(
        name=files.boxes.name,
        file=files.boxes,
        names=[name for (_, name), used in zip(there, keep, strict=True) if used],
        sizes=sizes[keep],
        categories=tuple(Category(i + 1, name) for i, name in enumerate(classes.values())),
        rows=rows.of_images(keep),
        negatives=_negatives(rows, verified, keep, len(classes)) if verified else None,
        faults=[*rows.faults, *(verified.faults if verified else ())],
        damaged=damaged,
    )


def _tell_of_others(
    path: Path,
    split: str,
    files: OpenImagesFiles,
    rows: BoxRows,
    verified: VerifiedRows | None,
    used: np.ndarray,
) -> None:
    """Of images that are not there or not in the files. Raises UserError where that is all of them."""
    absent = rows.others | (verified.others if verified else set())
    if not used.any():
        example = f"; looked for {min(absent)}.jpg" if absent else ""
        raise UserError(
            f"{files.boxes}: none of its images is below {path}, in {split}/, images/{split}/, images/ "
            f"or data/{example}"
        )
    if absent or not used.all():
        get_logger().warning(
            "%s: %d of its %d images are not there and are left out, as are %d images that it does not name",
            files.boxes, len(absent), len(absent) + used.sum(), (~used).sum(),
        )  # fmt: skip
    if verified is None:
        get_logger().warning(
            "%s: without *-annotations-human-imagelabels-boxable.csv beside it, every class that has no box "
            "in an image counts as absent there", files.boxes,
        )  # fmt: skip


def _classes(parts: Mapping[str, OpenImagesFiles], files: OpenImagesFiles) -> dict[str, str]:
    """Label -> name. All of a list of classes; of the list of all labels, and without a list (the labels are
    then the names), those with a box in any split."""
    named = read_class_names(files.classes) if files.classes else {}
    if named and len(named) <= _MOST_CLASSES:
        return named
    used = set[str]().union(*(column_values(part.boxes, "LabelName") for part in parts.values()))
    if not named:
        return {label: label for label in sorted(used)}
    return {label: name for label, name in named.items() if label in used}


def _negatives(rows: BoxRows, verified: VerifiedRows, keep: np.ndarray, classes: int) -> Ragged:
    """Classes that are absent in each of the images to keep by their labels, and have no box there."""
    absent = ~verified.present & keep[verified.image_index]
    said = verified.image_index[absent] * classes + verified.category_index[absent]
    pairs = np.setdiff1d(said, rows.image_index * classes + rows.category_index)
    image = (np.cumsum(keep) - 1)[pairs // classes]
    return Ragged.from_rows(image, (pairs % classes).astype(np.int32), int(keep.sum()))


def _grouped(rows: BoxRows, images: int, classes: int) -> Ragged:
    """The classes of each image that have a box around a group."""
    pairs = np.unique(rows.image_index[rows.group] * classes + rows.category_index[rows.group])
    return Ragged.from_rows(pairs // classes, (pairs % classes).astype(np.int32), images)
