"""Where LVIS, COCO and image-level JSON files and their images are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.annotations.cache import open_annotations
from datasets.annotations.categories import Category
from datasets.annotations.json_schema import read_columns
from datasets.annotations.json_search import HOMES, folders_in, json_candidates, pick
from datasets.annotations.source import (
    IMAGE_LEVEL,
    SPLIT_NAMES,
    AnnotationSource,
    RawAnnotations,
    split_of,
)
from datasets.annotations.table import AnnotationTable
from util.errors import UserError, nearest

IMAGE_LEVEL_JSON = "imagenet_lvis_image_info.json"

# Annotation file and folder of each split, by `dataset_file`.
_NAMES = {
    "lvis": "lvis_v1_{split}.json",
    "lvis_openvocab": "lvis_v1_{split}.json",
    "coco": "instances_{split}2017.json",
}
_FOLDERS = {"lvis": "lvis_v1", "lvis_openvocab": "lvis_v1", "coco": "coco"}
# LVIS's training file from which the rare boxes were removed (tools/remove_rare.py).
_WITHOUT_RARE = ("lvis_v1_train_norare.json", "lvis_v1_train_rm_rare.json")
# What the search among other names leaves out: boxes without the rare classes, and no boxes.
_OTHER_PURPOSES = (*_WITHOUT_RARE, IMAGE_LEVEL_JSON)
# Of users' own data, below `annotations/` or the folder itself; the last one is Roboflow's.
_OTHER_NAMES = (
    "instances_{split}2017.json",
    "instances_{split}.json",
    "{split}.json",
    "{split}/_annotations.coco.json",
)


@dataclass(frozen=True)
class JsonSource(AnnotationSource):
    """A JSON file in the form of LVIS, COCO or ImageNet-LVIS, in `annotations/` or beside the images."""

    looks_for = (
        "lvis_v1/annotations/lvis_v1_{split}.json, coco/annotations/instances_{split}2017.json (by "
        "--dataset_file; also in the folder itself), or one JSON file in COCO's form that is named for the "
        "split, or is in a folder of its name"
    )

    @classmethod
    def find(cls, path: Path, split: str, dataset_file: str) -> JsonSource | None:
        if split == IMAGE_LEVEL:
            file = path / IMAGE_LEVEL_JSON
            return cls(file, split, (path / "images", path)) if file.is_file() else None
        if dataset_file not in _NAMES:
            raise UserError(
                f"dataset_file {dataset_file!r} is not one of {', '.join(_NAMES)}."
                f"{nearest(dataset_file, _NAMES)}"
            )
        names = [_NAMES[dataset_file].format(split=split)]
        if dataset_file == "lvis_openvocab" and split == "train":
            names += _WITHOUT_RARE
        homes = (path / _FOLDERS[dataset_file], path)
        candidates = [folder / name for home in homes for folder in _places(home) for name in names]
        candidates += [
            folder / name.format(split=s)
            for s in SPLIT_NAMES[split]
            for folder in _places(path)
            for name in _OTHER_NAMES
        ]
        if path.is_file():  # all there is
            candidates = [path] if split == "train" and path.suffix.lower() == ".json" else []
        found = next((c for c in candidates if c.is_file()), None)
        if found is None and path.is_dir():
            others = [c for c in json_candidates(path) if c.path.name not in _OTHER_PURPOSES]
            found = picked.path if (picked := pick(others, split)) else None
        return cls(found, split, _image_roots(found, split, path)) if found else None

    def read(self) -> AnnotationTable:
        return open_annotations(self.path)

    def check(self) -> RawAnnotations:
        faults: list[str] = []
        images, boxes, entries = read_columns(self.path, faults.append)
        categories = []
        for entry in entries:
            try:
                categories.append(Category.from_json(entry))
            except UserError as error:
                faults.append(str(error))
        return RawAnnotations(
            categories=categories,
            image_ids=images.column("ids"),
            file_names=images.file_names,
            sizes=images.column("sizes"),
            annotation_ids=boxes.column("ids"),
            box_image_ids=boxes.column("image_ids"),
            box_category_ids=boxes.column("category_ids"),
            boxes_xywh=boxes.column("boxes_xywh"),
            faults=faults,
        )


def _places(home: Path) -> tuple[Path, Path]:
    return home / "annotations", home


def _image_roots(annotations: Path, split: str, data: Path) -> tuple[Path, ...]:
    """Folders that a JSON's file names may be relative to: LVIS's and COCO's, then those of exporters.

    data: the path that the user gave; the folders above the file are searched up to this one, and one more.
    """
    above = [annotations.parent, *annotations.parents[1:4]]
    levels = above[: above.index(data) + 2] if data in above else above[:2]
    # CVAT: `images/default` belongs to `instances_default.json`.
    subset = annotations.stem.removeprefix("instances_")
    roots: list[Path] = []
    for home in sorted(levels, key=lambda folder: folder.name.lower() in HOMES):
        roots += [home, home / f"{split}2017", home / "train2017", home / "images", home / "data"]
        named = [f / name for f in (home / "images", home) for name in (*SPLIT_NAMES[split], subset)]
        named += [inner for f in (home / "images", home) for inner in _folders_of(f, split)]
        roots += [place for f in named for place in (f, f / "images", f / "data")]
    return tuple(dict.fromkeys(roots))


def _folders_of(folder: Path, split: str) -> list[Path]:
    """The folders in a folder that are named for a split, in whatever way (`Train`, `val2014`)."""
    return [inner for inner in folders_in(folder) if split_of(Path(inner.name)) == split]
