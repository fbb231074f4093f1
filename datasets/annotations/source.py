"""What a data format is: how its annotations are found, how they are read, what is wrong with them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.table import AnnotationTable
from datasets.images.reader import ImageFolder
from util.errors import UserError
from util.logging import get_logger

# What a split may be called on disk. Sources of labelled images without boxes get the split IMAGE_LEVEL.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation")}
IMAGE_LEVEL = "image-level"
_PROBES = 64
# Words in the names of files and folders, by what they say of the split.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": (*SPLIT_NAMES["val"], "validate"),
    "test": ("test", "testing"),
}


def split_of(path: Path) -> str:
    """The split that a file or folder is named for, by itself or else by its nearest folder that is.

    path: relative to the data folder.  'train', 'val', 'test', or '' where none or several are named.
    """
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = set(re.findall("[a-z]+", part.lower()))
        if found := [split for split, known in _SPLIT_WORDS.items() if words.intersection(known)]:
            return found[0] if len(found) == 1 else ""
    return ""


@dataclass(frozen=True)
class RawAnnotations:
    """Annotations as they are in their files, before anything is refused, skipped or sorted: for the doctor.

    image_ids: (I,) int64.  file_names: I.  sizes: (I, 2) height, width; 0 if unknown.
    annotation_ids, box_image_ids, box_category_ids: (N,) int64.  boxes_xywh: (N, 4) float64 pixels.
    faults: a line for each entry that breaks the format's rules; these are not in the columns.
    places: row of a box -> the file and line it is written in; without it, its id says enough.
    """

    categories: Sequence[Category]
    image_ids: np.ndarray
    file_names: Sequence[str]
    sizes: np.ndarray
    annotation_ids: np.ndarray
    box_image_ids: np.ndarray
    box_category_ids: np.ndarray
    boxes_xywh: np.ndarray
    faults: Sequence[str] = field(default=())
    places: Callable[[int], str] | None = None

    def place_of_box(self, row: int) -> str:
        """Where box 0..N-1 is written, for messages."""
        return self.places(row) if self.places else f"annotation {self.annotation_ids[row]}"

    @classmethod
    def from_table(cls, table: AnnotationTable) -> RawAnnotations:
        """What is left in a table."""
        return cls(
            categories=table.categories,
            image_ids=table.image_ids,
            file_names=[table.file_names[i] for i in range(len(table))],
            sizes=table.sizes,
            annotation_ids=table.annotation_ids,
            box_image_ids=table.image_ids[table.image_index],
            box_category_ids=table.category_ids[table.category_index],
            boxes_xywh=table.boxes_xywh,
        )


def refuse_faults(faults: Sequence[str], what: str) -> None:
    """Raises UserError with the first fault and their number. what: 'lines', 'rows', ..."""
    if faults:
        raise UserError(f"{faults[0]} ({len(faults)} such {what}; tools/doctor.py lists them)")


@dataclass(frozen=True)
class AnnotationSource(ABC):
    """One split found on disk, in one data format. A format is a subclass, listed in `discovery.READERS`.

    path:  the file or folder that holds the annotations.
    split: 'train', 'val' or IMAGE_LEVEL.
    roots: folders that the file names may be relative to, most likely first.
    """

    path: Path
    split: str
    roots: tuple[Path, ...]

    # What `find` looks for, for the message if nothing is found.
    looks_for: ClassVar[str]
    # Whether its boxes refer to upright pixels (EXIF orientation applied) where no stated size tells.
    upright: ClassVar[bool] = False
    # Whether the names of its images come from the disk, so that none has to be looked for.
    names_files: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> AnnotationSource | None:
        """The split at the path that the user gave, or None if it does not have this format.

        dataset_file: 'lvis', 'lvis_openvocab' or 'coco'.
        """

    @abstractmethod
    def read(self) -> AnnotationTable:
        """The annotations for training and evaluation. Raises UserError naming what is wrong."""

    def check(self) -> RawAnnotations:
        """The annotations for the doctor, faults included. Raises UserError if nothing can be read."""
        return RawAnnotations.from_table(self.read())

    def images(self, file_names: Sequence[str], inside: Path | None = None) -> ImageFolder:
        """Where its images are read from, by the rules of its format; all of them are looked for.

        Says which were found under another name. inside: as in `ImageFolder`.
        Raises UserError as `image_root` does.
        """
        # Where there are no boxes, nothing refers to the stored pixels.
        upright = self.upright or self.split == IMAGE_LEVEL
        files = ImageFolder(self.image_root(file_names), inside, upright=upright)
        if not self.names_files and (said := files.resolve(file_names).report(len(file_names))):
            get_logger().warning("%s: %s", self.path, said)
        return files

    def image_root(self, file_names: Sequence[str]) -> Path:
        """The folder in which most of a sample of the images are found, as files or in an archive.

        Of several alike, the first one. A single root is taken as it is. Raises UserError naming the first
        image and the folders.
        """
        if not len(file_names):
            raise UserError(f"{self.path}: lists no images")
        if len(self.roots) == 1:
            return self.roots[0]
        sample = [file_names[i] for i in range(0, len(file_names), max(1, len(file_names) // _PROBES))]
        best, most = self.roots[0], 0
        for root in self.roots:
            files = ImageFolder(root)
            found = sum(files.find(name) is not None for name in sample)
            if found > most:
                best, most = root, found
            if found == len(sample):
                break
        if most:
            return best
        folders = [root for root in self.roots if root.is_dir()]
        located = [ImageFolder(root).resolve(sample) for root in folders]
        if found := max((len(result.found) for result in located), default=0):
            counts = [len(result.found) for result in located]
            return folders[counts.index(found)]
        there = next((instead for result in located if (instead := result.missing[sample[0]])), "")
        raise UserError(
            f"{self.path}: its images were not found; looked for {sample[0]:.200} "
            f"in {', '.join(map(str, folders))}{there and f'; there is {there}'}"
        )
