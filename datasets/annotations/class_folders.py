"""A folder (or tar) per class, without any annotation file, as the image-level stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.lvis_v1 import classes_by_wnid, wnid_in
from datasets.annotations.table import AnnotationTable
from datasets.columns import PackedStrings, Ragged, offsets_of
from datasets.images.class_containers import find_containers, is_image
from util.errors import UserError
from util.logging import get_logger

_MOST_NAMED = 20


def category_of_folder(identity: int, folder: str) -> Category:
    """The category that a folder stands for: its name, or the LVIS class of the WordNet id it starts with."""
    known = classes_by_wnid().get(wnid_in(folder))
    if known is None:
        return Category(identity, folder)
    return Category(identity, folder, synset=known.synset, synonyms=(known.name, *known.synonyms))


def read_class_folders(root: str | Path) -> AnnotationTable:
    """Every image in the containers below a `class_root`; sizes are left unknown (0, 0).

    Ids are 1, 2, ... in order of name; categories are named by their folders or tars. Folders without
    images and loose files are warned of. Raises UserError where there are no images at all.
    """
    root = Path(root)
    names, counts, categories = [], [], []
    for identity, container in enumerate(find_containers(root), start=1):
        files = container.open().files()
        categories.append(category_of_folder(identity, container.name))
        counts.append(len(files))
        names += [file.name for file in files]
    if not names:
        raise UserError(f"{root}: no images in its {len(categories)} folders (needed: a folder per class)")
    if empty := [c.name for c, count in zip(categories, counts, strict=True) if not count]:
        get_logger().warning("%s: %d class folders hold no image: %s", root, len(empty), _listed(empty))
    loose = (
        sorted(p.name for p in root.iterdir() if p.is_file() and is_image(p.name)) if root.is_dir() else []
    )
    if loose:
        get_logger().warning(
            "%s: %d images lie in no class folder and are left out, e.g. %s", root, len(loose), loose[0]
        )
    return image_level_store(root.name, tuple(categories), names, np.repeat(np.arange(len(counts)), counts))


def image_level_store(
    name: str, categories: tuple[Category, ...], file_names: list[str], labels: np.ndarray
) -> AnnotationTable:
    """A store of images with one label each and no boxes. labels: (I,) index into `categories`."""
    count = len(file_names)
    nothing = Ragged(np.zeros(0, np.int32), np.zeros(count + 1, np.int64))
    return AnnotationTable(
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


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(repr(n) for n in names[:_MOST_NAMED]) + more
