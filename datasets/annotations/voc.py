"""Pascal VOC: an XML file for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.source import SPLIT_NAMES, AnnotationSource, RawAnnotations, refuse_faults
from datasets.annotations.table import AnnotationTable
from datasets.annotations.voc_layout import VocPart, find_voc
from datasets.annotations.voc_xml import VocImage, VocObject, read_voc
from util.errors import UserError
from util.logging import get_logger


@dataclass(frozen=True)
class VocSource(AnnotationSource):
    """A split of a VOC folder. path: the folder."""

    looks_for = "VOC's Annotations/*.xml with ImageSets/Main/{split}.txt, or XML files in {split}/"
    upright = True

    @classmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> VocSource | None:
        part = find_voc(path).get(split) if split in SPLIT_NAMES else None
        return cls(part.home, split, (part.home,)) if part else None

    def read(self) -> AnnotationTable:
        """Ids of images and classes are 1, 2, ... in order of name; the classes are those of all splits.

        Objects that are `difficult` are ignored in evaluation. Raises UserError naming the first invalid
        object and counting them.
        """
        split = _read(self.path, self.split)
        refuse_faults(split.faults, "faults")
        if split.unlabelled:
            get_logger().info("%s: %d of %d images have no XML file, and so no boxes",
                              split.name, split.unlabelled, len(split.names))  # fmt: skip
        table = AnnotationTable.from_boxes(
            split.name,
            split.categories,
            split.names,
            np.array([image.size for image in split.images], np.int64).reshape(-1, 2),
            [thing.box_xywh for thing in split.objects],
            split.image_index,
            split.category_index,
        )
        return replace(table, ignore=np.array([thing.difficult for thing in split.objects], bool))

    def check(self) -> RawAnnotations:
        split = _read(self.path, self.split)
        ids = np.array([c.id for c in split.categories], np.int64)
        return RawAnnotations(
            categories=split.categories,
            image_ids=np.arange(len(split.names)),
            file_names=split.names,
            sizes=np.array([image.size for image in split.images], np.int64).reshape(-1, 2),
            annotation_ids=np.arange(1, len(split.objects) + 1),
            box_image_ids=split.image_index,
            box_category_ids=ids[split.category_index],
            boxes_xywh=np.array([thing.box_xywh for thing in split.objects], np.float64).reshape(-1, 4),
            faults=split.faults,
            places=partial(_place, split),
        )


@dataclass(frozen=True)
class _Split:
    """name: for messages.  names: of the image files, below the folder.  files: their XML files, or None.
    images: what these say.  unlabelled: number of images without one.  faults: a message for each invalid
    object, and for each file that cannot be read."""

    name: str
    names: Sequence[str]
    files: Sequence[Path | None]
    images: Sequence[VocImage]
    categories: tuple[Category, ...]
    unlabelled: int
    faults: Sequence[str]

    @property
    def objects(self) -> list[VocObject]:
        return [thing for image in self.images for thing in image.objects]

    @property
    def image_index(self) -> np.ndarray:
        """(N,) int64: the image of each object."""
        return np.repeat(np.arange(len(self.images)), [len(image.objects) for image in self.images])

    @property
    def category_index(self) -> np.ndarray:
        """(N,) int64 into `categories`."""
        index = {category.name: i for i, category in enumerate(self.categories)}
        return np.array([index[thing.name] for thing in self.objects], np.int64)


def _place(split: _Split, row: int) -> str:
    return f"{split.files[int(split.image_index[row])]} line {split.objects[row].line}"


def _read(path: Path, split: str) -> _Split:
    """Raises UserError where there is no VOC folder any more."""
    parts = find_voc(path)
    if (part := parts.get(split)) is None:
        raise UserError(f"{path}: has no VOC files for {split} any more")
    names, files, images, faults, unlabelled = [], [], [], [], 0
    for member in part.members:
        said = VocImage("", (0, 0), [], [])
        if member.file is not None:
            try:
                said = read_voc(member.file)
            except UserError as error:
                faults.append(str(error))
                continue
        name = part.image_of(member, said.filename)
        if name is None:
            faults.append(f"{member.file or member.listed_in}: there is no image {member.stem!r:.100}")
            continue
        unlabelled += member.file is None
        names.append(name)
        files.append(member.file)
        images.append(said)
        faults += said.faults
    classes = {thing.name for image in images for thing in image.objects}
    for other in parts:
        classes.update(_classes(parts[other]) if other != split else ())
    if not classes:
        raise UserError(faults[0] if faults else f"{path}: its XML files hold no objects")
    categories = tuple(Category(number, name) for number, name in enumerate(sorted(classes), 1))
    _tell_of_images_without_files(part, names)
    return _Split(f"{path.name} ({split})", names, files, images, categories, unlabelled, faults)


def _tell_of_images_without_files(part: VocPart, names: Sequence[str]) -> None:
    """An image that no file or list names may hold anything: it is no image without objects."""
    unnamed = [] if any(m.listed_in for m in part.members) else set(part.images.values()).difference(names)
    if unnamed:
        get_logger().warning(
            "%s: %d images have no XML file and are left out, first: %s (an image without objects has a file "
            "without <object>)", part.home, len(unnamed), min(unnamed),
        )  # fmt: skip


def _classes(part: VocPart) -> Iterator[str]:
    """The class names of another split; what is wrong there is said where it is read."""
    for member in part.members:
        try:
            image = read_voc(member.file) if member.file else None
        except UserError:
            continue
        yield from (thing.name for thing in (image.objects if image else ()))
