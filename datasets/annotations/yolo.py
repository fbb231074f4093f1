"""YOLO folders: images, a text file of boxes for each, and the class names."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from datasets.annotations.categories import Category
from datasets.annotations.json_errors import TOO_DEEP, is_text
from datasets.annotations.source import SPLIT_NAMES, AnnotationSource, RawAnnotations
from datasets.annotations.table import AnnotationTable
from datasets.images.class_sources import images_below, is_image
from datasets.images.header import DamagedError, inspect_file
from datasets.images.limits import leaves_folder
from util.errors import UserError
from util.logging import get_logger

_YAML_SUFFIXES = (".yaml", ".yml")
# Bytes of a text file: class names, boxes or paths.
_MOST_TEXT = 2**26
_NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")


@dataclass(frozen=True)
class YoloSource(AnnotationSource):
    """A split of a YOLO folder. path: its data.yaml, or the folder if it has `labels` but no such file."""

    looks_for = "YOLO's data.yaml or labels/"

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
    keypoints: number of keypoint values after each box, by the YAML's `kpt_shape`."""

    name: str
    names: tuple[str, ...]
    root: Path
    images: tuple[str, ...]
    keypoints: int = 0

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
    names = _names(content, source)
    entries = _entries(content, split) or [_split_folder(root, split, source)]
    found: list[str] = []
    for entry in entries:
        found += _listed(_resolved(str(entry), root, source), root)
    images = tuple(dict.fromkeys(sorted(found)))
    if not images:
        raise UserError(f"{source}: no images for {split} in {', '.join(map(str, entries)):.200}")
    if len(images) < len(found):
        get_logger().warning("%s: %d images of %s are listed more than once; each is used once",
                             source, len(found) - len(images), split)  # fmt: skip
    return YoloSplit(f"{source.name} ({split})", names, root, images, _keypoints(content, source))


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
    for index, image in enumerate(split.images):
        rows, faults = parse_labels(split.label_file(image), split.names, keypoints=split.keypoints)
        labels.faults.extend(faults)
        try:
            height, width = inspect_file(split.root / image)
        except (DamagedError, OSError, ValueError) as error:
            labels.damaged.append(f"{image}: {error}")
            labels.sizes.append((0, 0))
            continue
        labels.sizes.append((height, width))
        image_index += [index] * len(rows)
        labels.classes.extend(row[0] for row in rows)
        labels.boxes_xywh.extend(in_pixels(row[1:], height, width) for row in rows)
    return labels._replace(image_index=np.array(image_index, np.int64))


def in_pixels(box: Sequence[float], height: int, width: int) -> tuple[float, ...]:
    """CXCYWH in 0..1 -> XYWH in pixels."""
    x, y, w, h = box
    return (x - w / 2) * width, (y - h / 2) * height, w * width, h * height


def _may_have_names(path: Path) -> bool:
    """Whether a YAML file has `names`. Of one that cannot be read, only data.yaml may be meant."""
    try:
        return "names" in _yaml(path)
    except UserError:
        return path.stem == "data"


def _content(source: Path) -> dict[str, Any]:
    return _yaml(source) if source.is_file() else {}


def _root(source: Path, split: str) -> Path:
    """The folder that images' names are relative to: that of the YAML file's paths, or above it where one of
    the split's paths leads out of it."""
    content, folder = _content(source), source.parent if source.is_file() else source
    stated = folder / str(content.get("path") or "")
    root = stated if _exists(stated) and stated.is_dir() else folder
    places = [place for entry in _entries(content, split) if (place := _place(str(entry), root, source))]
    folders = [place if place.is_dir() else place.parent for place in places]
    if any(leaves_folder(os.path.relpath(place, root)) for place in folders):
        return Path(os.path.commonpath([root.absolute(), *(f.resolve() for f in folders)]))
    return root


def _entries(content: dict[str, Any], split: str) -> list[Any]:
    """What the YAML file says of a split: folders, and lists of images."""
    entries: Any = next((content[s] for s in SPLIT_NAMES[split] if content.get(s)), [])
    return entries if isinstance(entries, list) else [entries]


def _exists(path: Path) -> bool:
    """False also for what can be no path: too long, or with a zero byte."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not read", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def _yaml(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        content = yaml.load(text, _Loader)
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except Exception as error:  # values of a wrong form make the constructors raise anything
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())[:200]})") from None
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    """Of a text file. Raises UserError."""
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise UserError(f"{path}: has more than {_MOST_TEXT >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file ({error.reason})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _names(content: dict[str, Any], source: Path) -> tuple[str, ...]:
    """Names by class number."""
    names = content.get("names")
    if names is None:
        files = [source / name for name in _NAME_FILES if (source / name).is_file()]
        if not files:
            raise UserError(
                f"{source}: no class names; write them into data.yaml (`names:`) or classes.txt, one per line"
            )
        names = [line.strip() for line in _text(files[0]).splitlines() if line.strip()]
    if isinstance(names, dict):
        if not all(type(key) is int for key in names) or sorted(names) != list(range(len(names))):
            raise UserError(f"{source}: the numbers of `names` are not 0..{len(names) - 1}, each once")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise UserError(f"{source}: `names` is {names!r:.60}, not a list of class names")
    if not names:
        raise UserError(f"{source}: `names` is empty")
    if wrong := [name for name in names if not is_text(name)]:
        raise UserError(f"{source}: the class name {wrong[0]!r:.60} is not a string; put it in quotes")
    if content.get("nc", len(names)) != len(names):
        raise UserError(f"{source}: nc is {content['nc']!r:.60}, but `names` has {len(names)} classes")
    return tuple(names)


def _keypoints(content: dict[str, Any], source: Path) -> int:
    """Keypoint values per box, by `kpt_shape`: [points, values per point]. 0 without keypoints."""
    shape = content.get("kpt_shape", [0, 2])
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n >= 0 for n in shape)):
        raise UserError(f"{source}: kpt_shape {shape!r:.60} is not [points, values per point]")
    return shape[0] * shape[1]


def _split_folder(root: Path, split: str, source: Path) -> str:
    """The image folder of a split that no YAML file names."""
    places = [place for s in SPLIT_NAMES[split] for place in (f"images/{s}", f"{s}/images")]
    found = next((place for place in places if (root / place).is_dir()), None)
    if found is None:
        raise UserError(f"{source}: no images for {split}; looked for {', '.join(places)} and in data.yaml")
    return found


def _place(entry: str, root: Path, source: Path) -> Path | None:
    """A path of the YAML file. Exporters write `../train/images` for what is beside the file."""
    candidates = [root / entry, source.parent / entry, root / entry.removeprefix("../")]
    return next((c for c in candidates if _exists(c)), None)


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
    lines = [line.strip() for line in _text(place).splitlines()]
    return [Path(os.path.relpath(place.parent / line, root)).as_posix() for line in lines if is_image(line)]


# Annotation tools round past the edge; larger values are pixels, not fractions of the image.
_FARTHEST = 2.0

Row = tuple[int, float, float, float, float]
"""(class number, centre x, centre y, width, height), all but the first in 0..1 of the image."""


def parse_labels(path: Path, names: Sequence[str], *, keypoints: int = 0) -> tuple[list[Row], list[str]]:
    """The boxes of a label file, and a message for every invalid line. Without a file there are no boxes.

    A line is `class x y width height`, or a polygon `class x1 y1 x2 y2 x3 y3 ...`, which becomes its bounding
    box. keypoints: number of keypoint values after each box; they are ignored, and there are no polygons.
    """
    try:
        lines = _text(path).splitlines() if path.exists() else []
    except UserError as error:
        return [], [str(error)]
    except (OSError, ValueError) as error:
        return [], [f"{path!s:.200}: cannot be read ({error})"]
    rows, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not (words := line.split()):
            continue
        try:
            rows.append(_row(words, names, keypoints))
        except ValueError as error:
            faults.append(f"{path} line {number}: {error}")
    return rows, faults


def _row(words: list[str], names: Sequence[str], keypoints: int) -> Row:
    """Raises ValueError saying what is wrong."""
    if keypoints and len(words) == 5 + keypoints:
        words = words[:5]
    elif keypoints and len(words) != 5:
        raise ValueError(f"{len(words)} values, not {5 + keypoints} (a box and its keypoints, by kpt_shape)")
    polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not polygon:
        raise ValueError(f"{len(words)} values, not 5 (class x y width height) or a polygon of 3 points")
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f"{' '.join(words)[:60]!r} contains a value that is not a number") from None
    if not label.is_integer() or not 0 <= label < len(names):
        raise ValueError(f"class {words[0]:.60}, but there are {len(names)} classes (0..{len(names) - 1})")
    if not all(math.isfinite(v) and abs(v) <= _FARTHEST for v in values):
        raise ValueError(f"{' '.join(words[1:])[:60]} are not fractions of the image, 0..1; are they pixels?")
    if polygon:
        xs, ys = values[0::2], values[1::2]
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    x, y, width, height = values
    return int(label), x, y, width, height
