"""Where a YOLO folder keeps the images of a split: by data.yaml or obj.data, or by the names of folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from datasets.annotations.categories import Category
from datasets.annotations.source import SPLIT_NAMES
from datasets.annotations.yolo_lists import listed_images
from datasets.annotations.yolo_yaml import (
    NAME_FILES,
    class_names,
    dataset_folder,
    keypoint_values,
    read_yaml,
    split_paths,
)
from datasets.images.class_sources import images_below, is_image
from datasets.images.limits import leaves_folder
from util.errors import UserError
from util.files import path_exists
from util.logging import get_logger
from util.text_files import read_lines

_YAML_SUFFIXES = (".yaml", ".yml")
_DARKNET = ".data"
# What Roboflow writes into every data.yaml, whether there is such a split or not.
_ALWAYS_WRITTEN = "../valid/images"


@dataclass(frozen=True)
class YoloSplit:
    """name: for messages.  names: of the classes, by number.  root: the folder that `images` are relative to.
    keypoints: number of keypoint values after each box, by the YAML's `kpt_shape`; None without it.
    missing: a message for each line of a list of images that names none."""

    name: str
    names: tuple[str, ...]
    root: Path
    images: tuple[str, ...]
    keypoints: int | None = None
    missing: tuple[str, ...] = ()

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
    """The data.yaml or obj.data of a YOLO folder, or the folder if it has label files but neither; else None.

    path: the folder, or one of these files itself.
    """
    path = Path(path)
    if path.is_file():
        return path if path.suffix in (*_YAML_SUFFIXES, _DARKNET) else None
    files = [p for p in sorted(path.glob("*.y*ml")) if p.suffix in _YAML_SUFFIXES and p.is_file()]
    with_names = [p for p in files if _may_have_names(p)]
    if with_names:
        return next((p for p in with_names if p.stem == "data"), with_names[0])
    if (path / "obj.data").is_file():
        return path / "obj.data"
    places = (path / "labels", *(path / s / "labels" for names in SPLIT_NAMES.values() for s in names))
    labelled = any(_may_hold_rows(p) for p in places) or (
        any((path / name).is_file() for name in NAME_FILES)
        and any(_has_labelled_images(folder) for folder in (path, *_split_folders(path)))
    )
    return path if labelled else None


@dataclass(frozen=True)
class YoloFolder:
    """source: as `find_yolo` gives it.  content: what the file says, whose keys may be written in any case
    (`Train`); nothing for a folder.  root: the folder that its paths are relative to."""

    source: Path
    content: dict[str, Any]
    root: Path

    @classmethod
    def open(cls, source: Path) -> YoloFolder:
        """Raises UserError for a file that cannot be read."""
        folder = source.parent if source.is_file() else source
        content: dict[str, Any] = {}
        if source.is_file():
            content = _darknet(source) if source.suffix == _DARKNET else read_yaml(source)
            content = {key.lower(): value for key, value in content.items()}
        stated = folder / _at_home(dataset_folder(content, source))
        return cls(source, content, stated if path_exists(stated) and stated.is_dir() else folder)

    def has_split(self, split: str) -> bool:
        """Whether there are images for 'train' or 'val'. Raises UserError for what is no path."""
        return bool(self._entries(split))

    def split(self, split: str) -> YoloSplit:
        """Names and images of a split, 'train' or 'val'.

        Raises UserError for missing names or images, and for a YAML file that contradicts itself.
        """
        source, root = self.source, self.image_root(split)
        names = class_names(self.content, source)
        entries = self._entries(split)
        if not entries:
            places = [place for s in SPLIT_NAMES[split] for place in (f"images/{s}", f"{s}/images")]
            raise UserError(
                f"{source}: no images for {split}; looked for {', '.join(places)} and in data.yaml"
            )
        found: list[str] = []
        missing: list[str] = []
        for place in map(self._resolved, entries):
            if place.is_dir():
                inside = Path(os.path.relpath(place, root))
                found += [(inside / name).as_posix() for name in images_below(place)]
            else:
                listed, unknown = listed_images(place, root)
                found, missing = found + listed, missing + unknown
        images = tuple(dict.fromkeys(sorted(found)))
        if not images:
            raise UserError(
                missing[0] if missing else f"{source}: no images for {split} in {', '.join(entries):.200}"
            )
        if len(images) < len(found):
            get_logger().warning("%s: %d images of %s are listed more than once; each is used once",
                                 source, len(found) - len(images), split)  # fmt: skip
        keypoints = keypoint_values(self.content, source)
        return YoloSplit(f"{source.name} ({split})", names, root, images, keypoints, tuple(missing))

    def image_root(self, split: str) -> Path:
        """The folder that images' names are relative to: `root`, or one above it where a path of the split
        leads out of it."""
        entries = split_paths(self.content, SPLIT_NAMES[split], self.source)
        places = [place for entry in entries if (place := _place(entry, self.root, self.source))]
        folders = [place if place.is_dir() else place.parent for place in places]
        if any(leaves_folder(os.path.relpath(place, self.root)) for place in folders):
            return Path(os.path.commonpath([self.root.absolute(), *(f.resolve() for f in folders)]))
        return self.root

    def _entries(self, split: str) -> list[str]:
        """The folders and lists of images of a split: by the file, else by the names of folders.

        Where neither split has any, all images are for training.
        """
        found = {s: self._stated(s) or _named_folders(self.root, s) for s in SPLIT_NAMES}
        if split == "train" and not any(found.values()):
            return _unsplit(self.root)
        return found[split]

    def _stated(self, split: str) -> list[str]:
        paths = split_paths(self.content, SPLIT_NAMES[split], self.source)
        return [p for p in paths if p != _ALWAYS_WRITTEN or _place(p, self.root, self.source)]

    def _resolved(self, entry: str) -> Path:
        """A path of the file. Raises UserError where there is nothing."""
        found = _place(entry, self.root, self.source)
        if found is None:
            looked_for = str(self.root / entry)
            raise UserError(f"{self.source}: its {entry!r:.200} does not exist; looked for {looked_for:.200}")
        return found


def _may_have_names(path: Path) -> bool:
    """Whether a YAML file has `names`. Of one that cannot be read, only data.yaml may be meant."""
    try:
        return "names" in read_yaml(path)
    except UserError:
        return path.stem == "data"


def _darknet(source: Path) -> dict[str, Any]:
    """An obj.data as the keys of a data.yaml: lines of `key = value`. Raises UserError for any other line."""
    content = {}
    for number, line in enumerate(read_lines(source), 1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key or not value:
            raise UserError(f"{source} line {number}: {line.strip()!r:.60} is not `key = value`")
        content["nc" if key == "classes" else key] = value
    names = content.get("names")
    if names is not None and (place := _place(names, source.parent, source)):
        content["names"] = os.path.relpath(place, source.parent)
    return content


def _named_folders(root: Path, split: str) -> list[str]:
    """The image folder, or the list of images, of a split that no file states; [] where there is none."""
    for name in SPLIT_NAMES[split]:
        folders = [f"images/{name}", f"{name}/images"]
        if found := [place for place in folders if (root / place).is_dir()]:
            return found[:1]
        if _has_labelled_images(root / name):
            return [name]
        if (root / f"{name}.txt").is_file():
            return [f"{name}.txt"]
    return []


def _unsplit(root: Path) -> list[str]:
    if (root / "images").is_dir():
        return ["images"]
    return ["."] if _has_labelled_images(root) else []


def _split_folders(folder: Path) -> Iterator[Path]:
    return (folder / name for names in SPLIT_NAMES.values() for name in names)


def _may_hold_rows(folder: Path) -> bool:
    """Whether a folder called `labels` is YOLO's: others keep their XML, CSV and JSON files in such a one."""
    names = [p.name.lower() for p in folder.iterdir()] if folder.is_dir() else None
    if names is None:
        return False
    return any(n.endswith(".txt") for n in names) or not any(
        n.endswith((".xml", ".csv", ".json")) for n in names
    )


def _has_labelled_images(folder: Path) -> bool:
    """Whether there is an image with a text file of its name beside it."""
    try:
        names = {entry.name for entry in os.scandir(folder)}
    except OSError:
        return False
    return any(is_image(name) and f"{Path(name).stem}.txt" in names for name in names)


def _place(entry: str, root: Path, source: Path) -> Path | None:
    """A path of the file. Exporters write `../train/images` for what is beside it, `data/train.txt` or the
    folder's own name for what is in it, and absolute paths of their machine: the last parts of these count,
    as many as exist."""
    entry = _at_home(entry)
    candidates = [root / entry, source.parent / entry, root / entry.removeprefix("../")]
    first, _, rest = entry.partition("/")
    if first in ("data", root.name, source.parent.name) and rest:
        candidates.append(root / rest)
    if PureWindowsPath(entry).is_absolute() or entry.startswith("/"):
        parts = [part for part in re.split(r"[/\\]", entry) if part not in ("", "..")]
        candidates += [root.joinpath(*parts[i:]) for i in range(1, len(parts))]
    return next((c for c in candidates if path_exists(c)), None)


def _at_home(path: str) -> str:
    """With the home folder in place of a leading `~`."""
    return os.path.expanduser(path) if path.startswith("~") else path
