"""A folder (or tar) per class, without any annotation file, as the image-level stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.lvis_v1 import classes_by_wnid, wnid_in
from datasets.annotations.source import IMAGE_LEVEL, AnnotationSource
from datasets.annotations.table import AnnotationTable
from datasets.columns import Ragged
from datasets.images.class_sources import class_root, find_class_sources, is_image
from util.errors import UserError, listed
from util.logging import get_logger

_MOST_NAMED = 20


def category_of_folder(identity: int, folder: str) -> Category:
    """The category that a folder stands for: its name, or the LVIS class of the WordNet id it starts with."""
    known = classes_by_wnid().get(wnid_in(folder))
    if known is None:
        return Category(identity, folder)
    return Category(identity, folder, synset=known.synset, synonyms=(known.name, *known.synonyms))


def read_class_folders(root: str | Path) -> AnnotationTable:
    """Every image in the sources below a `class_root`, each with its one label; sizes are unknown (0, 0).

    Ids are 1, 2, ... in order of name; categories are named by their folders or tars. Warns of folders
    without images and of images outside the folders. Raises UserError if there is no image at all.
    """
    root = Path(root)
    names, counts, categories = [], [], []
    for identity, source in enumerate(find_class_sources(root), start=1):
        files = source.open().files()
        categories.append(category_of_folder(identity, source.name))
        counts.append(len(files))
        names += [file.name for file in files]
    if not names:
        raise UserError(
            f"{root}: no images in its {len(categories)} folders; it needs a folder of images per class"
        )
    if empty := [c.name for c, count in zip(categories, counts, strict=True) if not count]:
        get_logger().warning(
            "%s: %d class folders hold no image, add some or remove them: %s",
            root,
            len(empty),
            _listed(empty),
        )
    loose = (
        sorted(p.name for p in root.iterdir() if p.is_file() and is_image(p.name)) if root.is_dir() else []
    )
    if loose:
        get_logger().warning(
            "%s: %d images are outside the class folders and are skipped: move them; first: %s",
            root,
            len(loose),
            loose[0],
        )
    nothing = np.zeros(0, np.int32)
    table = AnnotationTable.from_boxes(
        root.name, categories, names, np.zeros((len(names), 2)), np.zeros((0, 4)), nothing, nothing
    )
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return replace(table, positives=Ragged(labels, np.arange(len(names) + 1)))


@dataclass(frozen=True)
class ClassFolderSource(AnnotationSource):
    """A folder or tar per class, or one tar that holds such folders: images with a label and no boxes."""

    looks_for = ""
    upright = True
    names_files = True

    @classmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> ClassFolderSource | None:
        if split != IMAGE_LEVEL or (root := class_root(path)) is None:
            return None
        # A tar stands in for the folder of its name.
        return cls(root, split, (root if root.is_dir() else root.with_suffix(""),))

    def read(self) -> AnnotationTable:
        return read_class_folders(self.path)


def _listed(names: list[str]) -> str:
    return listed([repr(name) for name in names], _MOST_NAMED)
