"""Where a folder keeps the CSV files and images of Open Images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.annotations.source import SPLIT_NAMES, split_of
from datasets.images.class_sources import images_below

# `validation-annotations-bbox.csv`, `oidv6-train-annotations-bbox.csv`; FiftyOne calls it `detections.csv`.
_BOXES = re.compile(r"(?:oidv\d-)?(?P<subset>.+)-annotations-bbox\.csv", re.IGNORECASE)
_VERIFIED = "{subset}-annotations-human-imagelabels{kind}.csv"
_FIFTYONE = ("detections.csv", "classifications.csv")
_HOMES = ("", "annotations", "csv", "csv_folder", "labels", "metadata")
_CLASSES = (
    "class-descriptions-boxable.csv",
    "oidv7-class-descriptions-boxable.csv",
    "oidv6-class-descriptions.csv",
    "oidv7-class-descriptions.csv",
    "class-descriptions.csv",
    "classes.csv",
)


@dataclass(frozen=True)
class OpenImagesFiles:
    """boxes: the file of them.  subset: the split as it is called there.
    verified: the file of labels that people verified.  classes: that of class names; None without one."""

    boxes: Path
    subset: str
    verified: Path | None
    classes: Path | None


def find_open_images(path: Path) -> Mapping[str, OpenImagesFiles]:
    """'train', 'val' -> its files. A single file of boxes that is named for no split is for training."""
    if not path.is_dir():
        return {}
    found: dict[str, OpenImagesFiles] = {}
    for boxes, subset in _box_files(path):
        found.setdefault(split_of(Path(subset)), _files(path, boxes, subset))
    named = {split: files for split, files in found.items() if split in SPLIT_NAMES}
    return named or ({"train": found[""]} if "" in found else {})


def images_of(path: Path, split: str, files: OpenImagesFiles) -> dict[str, str]:
    """Image id -> name below the data folder: of the first folder that has any, by the split's name first."""
    names = dict.fromkeys((files.subset, *SPLIT_NAMES[split]))
    # FiftyOne keeps masks, images too, beside `data`.
    folders = [f for name in names for f in (f"{name}/data", name, f"images/{name}", f"data/{name}")]
    for folder in (*folders, "images", "data"):
        if found := images_below(path / folder) if (path / folder).is_dir() else []:
            return {PurePosixPath(name).stem: f"{folder}/{name}" for name in found}
    return {p.stem: p.name for p in map(PurePosixPath, images_below(path)) if len(p.parts) == 1}


def _box_files(path: Path) -> Iterator[tuple[Path, str]]:
    """Files of boxes, and the split that each is named for."""
    splits = [name for names in SPLIT_NAMES.values() for name in names]
    for home in (*_HOMES, *splits, *(f"{split}/labels" for split in splits)):
        folder = path / home
        for file in sorted(folder.glob("*.csv")) if folder.is_dir() else []:
            if match := _BOXES.fullmatch(file.name):
                yield file, match["subset"]
            elif file.name == _FIFTYONE[0] and home.partition("/")[0] in splits:
                yield file, home.partition("/")[0]


def _files(path: Path, boxes: Path, subset: str) -> OpenImagesFiles:
    stem = boxes.name.removesuffix("-annotations-bbox.csv")
    names = [_VERIFIED.format(subset=s, kind=kind) for kind in ("-boxable", "") for s in (subset, stem)]
    names += [f"oidv{v}-{name}" for v in (6, 7) for name in names[:]]
    beside = [boxes.parent / name for name in (*names, *_FIFTYONE[1:])]
    homes = [boxes.parent, *(path / home for home in _HOMES), boxes.parent.parent / "metadata"]
    classes = [home / name for name in _CLASSES for home in homes]
    return OpenImagesFiles(boxes, subset, _first(beside), _first(classes))


def _first(files: list[Path]) -> Path | None:
    return next((file for file in files if file.is_file()), None)
