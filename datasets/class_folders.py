"""A folder per class, without any annotation file, as the image-level stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.classes import Category
from datasets.lvis_v1 import classes_by_wnid, wnid_in
from datasets.store import AnnotationStore, PackedStrings, Ragged, offsets_of
from util.errors import UserError
from util.logging import get_logger

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
# Folders that hold a split of the classes, not a class.
_SPLITS = {"train", "val", "valid", "validation", "test"}
_MOST_NAMED = 20


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does. Hidden files, such as macOS's `._*`, are none."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def class_folder_root(folder: str | Path) -> Path | None:
    """Where the class folders lie in `folder`: in `images/`, in `train/` where there are only splits, or in
    itself. None where it has no folders."""
    folder = Path(folder)
    names = set(_subfolders(folder)) if folder.is_dir() else set()
    if "images" in names:
        return class_folder_root(folder / "images")
    if "train" in names and names <= _SPLITS:
        return folder / "train"
    return folder if names else None


def class_folders(root: str | Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, its picture files relative to `root`, at any depth), everything in order of name."""
    root = Path(root)
    for folder in _subfolders(root):
        names = []
        for place, _, files in os.walk(root / folder):
            inside = Path(place).relative_to(root).as_posix()
            names += [f"{inside}/{file}" for file in files if is_picture(file)]
        yield folder, sorted(names)


def category_of_folder(identity: int, folder: str) -> Category:
    """The category that a folder stands for: its name, or the LVIS class of the WordNet id it starts with."""
    known = classes_by_wnid().get(wnid_in(folder))
    if known is None:
        return Category(identity, folder)
    return Category(identity, folder, synset=known.synset, synonyms=(known.name, *known.synonyms))


def read_class_folders(root: str | Path) -> AnnotationStore:
    """Every picture below `root`, labelled with its folder; sizes are left unknown (0, 0).

    Ids are 1, 2, ... in order of name; categories are named by their folders. Folders without pictures and
    loose files are warned of. Raises UserError where there are no pictures at all.
    """
    root = Path(root)
    names, counts, categories = [], [], []
    for identity, (folder, files) in enumerate(class_folders(root), start=1):
        categories.append(category_of_folder(identity, folder))
        counts.append(len(files))
        names += files
    if not names:
        raise UserError(
            f"{root}: no pictures in its {len(categories)} folders (a folder per class is needed)"
        )
    if empty := [c.name for c, count in zip(categories, counts, strict=True) if not count]:
        get_logger().warning("%s: %d class folders hold no picture: %s", root, len(empty), _listed(empty))
    if loose := sorted(p.name for p in root.iterdir() if p.is_file() and is_picture(p.name)):
        get_logger().warning(
            "%s: %d pictures lie in no class folder and are left out, e.g. %s", root, len(loose), loose[0]
        )
    return image_level_store(root.name, tuple(categories), names, np.repeat(np.arange(len(counts)), counts))


def image_level_store(
    name: str, categories: tuple[Category, ...], file_names: list[str], labels: np.ndarray
) -> AnnotationStore:
    """A store of pictures with one label each and no boxes. labels: (I,) index into `categories`."""
    count = len(file_names)
    nothing = Ragged(np.zeros(0, np.int32), np.zeros(count + 1, np.int64))
    return AnnotationStore(
        name=name,
        categories=categories,
        image_ids=np.arange(1, count + 1),
        sizes=np.zeros((count, 2), np.int32),
        file_names=PackedStrings.pack(file_names),
        negatives=nothing,
        not_exhaustive=nothing,
        positives=Ragged(labels.astype(np.int32), offsets_of(np.ones(count, np.int64))),
        federated=False,
        box_offsets=np.zeros(count + 1, np.int64),
        boxes_xywh=np.zeros((0, 4)),
        areas=np.zeros(0),
        category_index=np.zeros(0, np.int32),
        annotation_ids=np.zeros(0, np.int64),
        ignore=np.zeros(0, bool),
        crowd=np.zeros(0, bool),
    )


def _subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, in order; hidden ones and what archivers leave are skipped."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(repr(n) for n in names[:_MOST_NAMED]) + more
