"""YOLO folders: images, a text file of boxes for each, and the class names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.source import SPLIT_NAMES, AnnotationSource, RawAnnotations
from datasets.annotations.table import AnnotationTable
from datasets.annotations.yolo_labels import LabelReader, in_pixels
from datasets.annotations.yolo_yaml import (
    class_names,
    dataset_folder,
    keypoint_values,
    read_yaml,
    split_paths,
)
from datasets.images.class_sources import images_below, is_image
from datasets.images.header import DamagedError, inspect_file
from datasets.images.limits import leaves_folder
from util.errors import UserError
from util.logging import get_logger
from util.text_files import read_lines

_YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class YoloSource(AnnotationSource):
    """A split of a YOLO folder. path: its data.yaml, or the folder if it has `labels` but no such file."""

    looks_for = "YOLO's data.yaml or labels/"
    upright = True

    @classmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> YoloSource | None:
        found = find_yolo(path) if split in SPLIT_NAMES else None
        return cls(found, split, (_root(found, split),)) if found else None

    def read(self) -> AnnotationTable:
        """Ids of images are 1, 2, ... in order of name, those of classes 0, 1, ...

        Images without a label file have no boxes. Damaged images are skipped, with a warning.
        Raises UserError naming the first invalid label line and counting them.
        """
        split = open_yolo(self.path, self.split)
        labels = _read_labels(split)
        if labels.faults:
            raise UserError(
                f"{labels.faults[0]} ({len(labels.faults)} such lines; tools/doctor.py lists them)"
            )
        if labels.damaged:
            get_logger().warning(
                "%s: %d damaged images are skipped, first: %s",
                split.name,
                len(labels.damaged),
                labels.damaged[0],
            )
        if unlabelled := sum(not _exists(split.label_file(image)) for image in split.images):
            get_logger().info(
                "%s: %d of %d images have no label file, and so no boxes",
                split.name, unlabelled, len(split.images),
            )  # fmt: skip
        whole = np.array([height > 0 for height, _ in labels.sizes], bool)
        return AnnotationTable.from_boxes(
            split.name,
            split.categories,
            [name for name, usable in zip(split.images, whole, strict=True) if usable],
            np.array(labels.sizes).reshape(-1, 2)[whole],
            labels.boxes_xywh,
            (np.cumsum(whole) - 1)[labels.image_index],
            labels.classes,
        )

    def check(self) -> RawAnnotations:
        split = open_yolo(self.path, self.split)
        labels = _read_labels(split)
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
            faults=labels.faults,
        )


@dataclass(frozen=True)
class YoloSplit:
    """name: for messages.  names: of the classes, by number.  root: the folder that `images` are relative to.
    keypoints: number of keypoint values after each box, by the YAML's `kpt_shape`; None without it."""

    name: str
    names: tuple[str, ...]
    root: Path
    images: tuple[str, ...]
    keypoints: int | None = None

    @property
    def categories(self) -> tuple[Category, ...]:
        """Their ids are the class numbers."""
        return tuple(Category(number, name) for number, name in enumerate(self.names))

    def label_file(self, image: str) -> Path:
        """The text file of an image: `labels` in place of the last `images` of its path, else beside it."""
        parts = list(Path(image).with_suffix(".txt").parts)
        folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
        if folders:
            parts[folders[-1]] = "labels"
        return self.root.joinpath(*parts)


def find_yolo(path: str | Path) -> Path | None:
    """The data.yaml of a YOLO folder, or the folder if it has `labels` but no such file; else None.

    path: the folder, or the YAML file itself.
    """
    path = Path(path)
    if path.is_file():
        return path if path.suffix in _YAML_SUFFIXES else None
    files = [p for p in sorted(path.glob("*.y*ml")) if p.suffix in _YAML_SUFFIXES and p.is_file()]
    with_names = [p for p in files if _may_have_names(p)]
    if with_names:
        return next((p for p in with_names if p.stem == "data"), with_names[0])
    places = (path / "labels", *(path / s / "labels" for names in SPLIT_NAMES.values() for s in names))
    return path if any(p.is_dir() for p in places) else None


def open_yolo(source: Path, split: str) -> YoloSplit:
    """Names and images of a split, 'train' or 'val'. source: as `find_yolo` gives it.

    Raises UserError for missing names or images, and for a YAML file that contradicts itself.
    """
    content, root = _content(source), _root(source, split)
    names = class_names(content, source)
    entries = split_paths(content, SPLIT_NAMES[split], source) or [_split_folder(root, split, source)]
    found: list[str] = []
    for entry in entries:
        found += _listed(_resolved(entry, root, source), root)
    images = tuple(dict.fromkeys(sorted(found)))
    if not images:
        raise UserError(f"{source}: no images for {split} in {', '.join(entries):.200}")
    if len(images) < len(found):
        get_logger().warning("%s: %d images of %s are listed more than once; each is used once",
                             source, len(found) - len(images), split)  # fmt: skip
    return YoloSplit(f"{source.name} ({split})", names, root, images, keypoint_values(content, source))


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


def _may_have_names(path: Path) -> bool:
    """Whether a YAML file has `names`. Of one that cannot be read, only data.yaml may be meant."""
    try:
        return "names" in read_yaml(path)
    except UserError:
        return path.stem == "data"


def _content(source: Path) -> dict[str, Any]:
    return read_yaml(source) if source.is_file() else {}


def _root(source: Path, split: str) -> Path:
    """The folder that images' names are relative to: that of the YAML file's paths, or above it where one of
    the split's paths leads out of it."""
    content, folder = _content(source), source.parent if source.is_file() else source
    stated = folder / _at_home(dataset_folder(content, source))
    root = stated if _exists(stated) and stated.is_dir() else folder
    entries = split_paths(content, SPLIT_NAMES[split], source)
    places = [place for entry in entries if (place := _place(entry, root, source))]
    folders = [place if place.is_dir() else place.parent for place in places]
    if any(leaves_folder(os.path.relpath(place, root)) for place in folders):
        return Path(os.path.commonpath([root.absolute(), *(f.resolve() for f in folders)]))
    return root


def _exists(path: Path) -> bool:
    """False also for what can be no path: too long, or with a zero byte."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _split_folder(root: Path, split: str, source: Path) -> str:
    """The image folder of a split that no YAML file names."""
    places = [place for s in SPLIT_NAMES[split] for place in (f"images/{s}", f"{s}/images")]
    found = next((place for place in places if (root / place).is_dir()), None)
    if found is None:
        raise UserError(f"{source}: no images for {split}; looked for {', '.join(places)} and in data.yaml")
    return found


def _place(entry: str, root: Path, source: Path) -> Path | None:
    """A path of the YAML file. Exporters write `../train/images` for what is beside the file, and absolute
    paths of the machine of the export: of these the last parts count, as many as exist."""
    entry = _at_home(entry)
    candidates = [root / entry, source.parent / entry, root / entry.removeprefix("../")]
    if PureWindowsPath(entry).is_absolute() or entry.startswith("/"):
        parts = [part for part in re.split(r"[/\\]", entry) if part not in ("", "..")]
        candidates += [root.joinpath(*parts[i:]) for i in range(1, len(parts))]
    return next((c for c in candidates if _exists(c)), None)


def _at_home(path: str) -> str:
    """With the home folder in place of a leading `~`."""
    return os.path.expanduser(path) if path.startswith("~") else path


def _resolved(entry: str, root: Path, source: Path) -> Path:
    """The same. Raises UserError where it does not exist."""
    found = _place(entry, root, source)
    if found is None:
        raise UserError(f"{source}: its {entry!r:.200} does not exist; looked for {str(root / entry)!s:.200}")
    return found


def _listed(place: Path, root: Path) -> list[str]:
    """The images of a folder, or those that a text file lists, relative to `root`."""
    if place.is_dir():
        inside = Path(os.path.relpath(place, root)).as_posix()
        return [f"{inside}/{name}" for name in images_below(place)]
    lines = [line.strip() for line in read_lines(place)]
    return [Path(os.path.relpath(place.parent / line, root)).as_posix() for line in lines if is_image(line)]
