"""From the paths that the user gives to annotations and images, in whatever format they are."""

from __future__ import annotations

from pathlib import Path

from datasets.annotations.class_folders import ClassFolderSource
from datasets.annotations.found_instead import files_there, unpacked_folders
from datasets.annotations.json_source import IMAGE_LEVEL_JSON, JsonSource
from datasets.annotations.open_images import OpenImagesSource
from datasets.annotations.source import IMAGE_LEVEL, AnnotationSource
from datasets.annotations.table import AnnotationTable
from datasets.annotations.voc import VocSource
from datasets.annotations.yolo import YoloSource
from datasets.images.limits import leaves_folder
from datasets.images.reader import ImageFolder
from util.errors import UserError, nearest

# What can be done about data without a validation split.
VAL_SHARE = "val_share=0.2 takes a fifth of the training images for validation"
# Every data format, for training and the doctor alike. The first one that finds something is used.
READERS: list[type[AnnotationSource]] = [
    JsonSource,
    YoloSource,
    VocSource,
    OpenImagesSource,
    ClassFolderSource,
]


def open_detection(
    data_path: str | Path, split: str, dataset_file: str = "lvis", *, allow_outside: bool = False
) -> tuple[AnnotationTable, ImageFolder]:
    """The box-annotated data of a split, 'train' or 'val'.

    allow_outside: also reads images that names or links place outside of the data folder.
    Raises UserError naming what was looked for, or a name that leads out of the image folder.
    """
    source = find_detection(data_path, split, dataset_file)
    return open_source(source, None if allow_outside else folder_of(data_path))


def open_image_level(
    data_path: str | Path, imagenet_path: str = "", *, allow_outside: bool = False
) -> tuple[AnnotationTable, ImageFolder]:
    """The images that have a label but no boxes. Arguments and errors as in `open_detection`."""
    source = find_image_level(data_path, imagenet_path)
    return open_source(source, None if allow_outside else folder_of(source.path))


def folder_of(path: str | Path) -> Path:
    """A folder itself, a file's folder."""
    path = Path(path)
    return path if path.is_dir() else path.parent


def open_examples(path: str | Path) -> tuple[AnnotationTable, ImageFolder]:
    """Example images: a box-annotated training split, else a folder of images per class.

    Raises UserError where the path is neither.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of example images")
    for split in ("train", IMAGE_LEVEL):
        for reader in READERS:
            if found := reader.find(folder, split, "lvis"):
                return open_source(found)
    raise UserError(f"{folder}: has neither a folder of images per class nor boxes (train.json, data.yaml)")


def open_source(source: AnnotationSource, inside: Path | None = None) -> tuple[AnnotationTable, ImageFolder]:
    """A split that was found. inside: as in `ImageFolder`.

    Raises UserError for what cannot be read, and for a name that leads out of the image folder.
    """
    table = source.read()
    names = [table.file_names[i] for i in range(len(table))]
    images = source.images(names, inside)
    outside = [name for name in names if leaves_folder(name) and images.refusal(name)]
    if outside:
        raise UserError(
            f"{source.path}: the image name {outside[0]!r:.100} leads out of the image folder "
            f"({len(outside)} such): docs/data.md says which names are read"
        )
    images.open_archives(names)
    return table, images


def find_detection(data_path: str | Path, split: str, dataset_file: str = "lvis") -> AnnotationSource:
    """The annotations of a split, 'train' or 'val'.

    data_path: the folder that holds `lvis_v1/` (or `coco/`), or that folder itself; a folder in any other
        format; YOLO's data.yaml.
    dataset_file: 'lvis', 'lvis_openvocab' or 'coco'.
    Raises UserError naming what was looked for.
    """
    path = Path(data_path)
    found = find_split(path, split, dataset_file)
    if found is None:
        raise UserError(missing_split(path, split, dataset_file))
    return found


def missing_split(data_path: str | Path, split: str, dataset_file: str) -> str:
    """What is said of data that lacks a split: what was looked for, what is there, and the way out."""
    path = Path(data_path)
    readers: list[type[AnnotationSource]] = READERS
    ends, other = "", None
    if split == "val" and (other := find_split(path, "train", dataset_file)):
        readers, ends = [type(other)], f"; {VAL_SHARE}"
    looked_for = "; ".join(r.looks_for.format(split=split) for r in readers if r.looks_for)
    there = files_there(path) if path.is_dir() else path.name
    return (
        f"--data_path {path}: no annotation file for {split}; there is {there or 'none of any format'}; "
        f"{'there is nothing but training data; ' if other else ''}looked for {looked_for}{ends}"
    )


def find_split(data_path: str | Path, split: str, dataset_file: str = "lvis") -> AnnotationSource | None:
    """As `find_detection`, but None where the data has no such split, as 'val' of data that is not split.

    Raises UserError where there is nothing at that path.
    """
    path = Path(data_path)
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"--data_path {path}: no such folder.{nearest(path.name, beside)}")
    for folder in (path, *unpacked_folders(path)):
        if found := next((s for r in READERS if (s := r.find(folder, split, dataset_file))), None):
            return found
    return None


def find_image_level(data_path: str | Path, imagenet_path: str = "") -> AnnotationSource:
    """The labelled images without boxes.

    imagenet_path: their folder, if it is given; else `imagenet-lvis` below data_path, or beside it if that is
        the LVIS folder itself.
    Raises UserError naming what was looked for.
    """
    base = Path(data_path)
    folders = [base / "imagenet-lvis", base.parent / "imagenet-lvis"]
    if imagenet_path:
        folders = [Path(imagenet_path)]
    for reader in READERS:
        for folder in folders:
            if found := reader.find(folder, IMAGE_LEVEL, "lvis"):
                return found
    raise UserError(
        f"no image-level data: looked for {', '.join(str(f / IMAGE_LEVEL_JSON) for f in folders)}, and for a "
        "folder per class there; set imagenet_path, or use_imagenet=False"
    )
