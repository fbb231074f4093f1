"""From the paths that the user gives to annotations and images, whatever form they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.annotations.cache import open_annotations
from datasets.annotations.class_folders import read_class_folders
from datasets.annotations.table import AnnotationTable
from datasets.annotations.yolo import SPLIT_NAMES, find_yolo, open_yolo, read_yolo
from datasets.images.class_containers import class_root
from datasets.images.reader import ImageFolder
from util.errors import UserError, nearest


def open_detection(
    data_path: str | Path, split: str, dataset_file: str = "lvis"
) -> tuple[AnnotationTable, ImageFolder]:
    """The box-annotated data of a split, 'train' or 'val'. Raises UserError naming what was looked for."""
    paths = detection_paths(data_path, split, dataset_file)
    if paths.annotations.suffix != ".json":
        yolo = open_yolo(paths.annotations, split)
        return read_yolo(yolo), ImageFolder(yolo.root)
    annotations = open_annotations(paths.annotations)
    return annotations, _images(image_root(paths, annotations), annotations)


def open_image_level(data_path: str | Path, imagenet_path: str = "") -> tuple[AnnotationTable, ImageFolder]:
    """The images that have a label only: a JSON with its images, or a folder per class.

    Raises UserError naming what was looked for.
    """
    paths = image_level_paths(data_path, imagenet_path)
    if paths.annotations.name != IMAGE_LEVEL_JSON:
        annotations = read_class_folders(paths.annotations)
        return annotations, _images(paths.roots[0], annotations)
    annotations = open_annotations(paths.annotations)
    return annotations, _images(image_root(paths, annotations), annotations)


def _images(root: Path, annotations: AnnotationTable) -> ImageFolder:
    images = ImageFolder(root)
    images.open_archives(annotations.file_names[i] for i in range(len(annotations)))
    return images


IMAGE_LEVEL_JSON = "imagenet_lvis_image_info.json"

# Annotation file and image folder of each split, by `dataset_file`.
_JSON_NAMES = {
    "lvis": "lvis_v1_{split}.json",
    "lvis_openvocab": "lvis_v1_{split}.json",
    "coco": "instances_{split}2017.json",
}
# Of people's own data, below `annotations/` or the folder itself; the last one is Roboflow's.
_OTHER_JSON_NAMES = (
    "instances_{split}2017.json",
    "instances_{split}.json",
    "{split}.json",
    "{split}/_annotations.coco.json",
)
# LVIS's training file where the rare boxes were taken out before (tools/remove_rare.py).
_WITHOUT_RARE = ("lvis_v1_train_norare.json", "lvis_v1_train_rm_rare.json")
_FOLDER_NAMES = {"lvis": "lvis_v1", "lvis_openvocab": "lvis_v1", "coco": "coco"}


@dataclass(frozen=True)
class SplitPaths:
    """annotations: the JSON; or YOLO's data.yaml or folder; or what holds a folder per class.
    roots: folders that the file names may be relative to, most likely first."""

    annotations: Path
    roots: tuple[Path, ...]


def detection_paths(data_path: str | Path, split: str, dataset_file: str = "lvis") -> SplitPaths:
    """Annotation file and image folders of the box-annotated data.

    data_path: the folder that holds `lvis_v1/` (or `coco/`), or that folder itself; a folder of one's own
        with JSONs of other usual names, or YOLO's; a YOLO data.yaml. Then `annotations` is that data.yaml,
        or the folder that has `labels` but no such file, and `roots` is empty.
    split: 'train' or 'val'.  dataset_file: 'lvis', 'lvis_openvocab' or 'coco'.
    JSONs lie in `annotations/` or beside the image folders.
    Raises UserError naming the files that were looked for.
    """
    if dataset_file not in _JSON_NAMES:
        raise UserError(
            f"dataset_file {dataset_file!r} is none of {', '.join(_JSON_NAMES)}."
            f"{nearest(dataset_file, _JSON_NAMES)}"
        )
    if Path(data_path).is_file() and (yolo := find_yolo(data_path)):
        return SplitPaths(yolo, ())
    base = _existing_folder(data_path, "--data_path")
    homes = (base / _FOLDER_NAMES[dataset_file], base)
    names = [_JSON_NAMES[dataset_file].format(split=split)]
    if dataset_file == "lvis_openvocab" and split == "train":
        names += _WITHOUT_RARE
    candidates = [
        folder / name for home in homes for folder in (home / "annotations", home) for name in names
    ]
    others = [
        folder / name.format(split=s)
        for s in SPLIT_NAMES[split]
        for folder in (base / "annotations", base)
        for name in _OTHER_JSON_NAMES
    ]
    found = next((c for c in (*candidates, *others) if c.is_file()), None)
    if found is not None:
        return SplitPaths(found, _image_roots(found, split))
    if yolo := find_yolo(base):
        return SplitPaths(yolo, ())
    looked = ", ".join(str(c.relative_to(base)) for c in (*candidates, others[0], others[-1]))
    raise UserError(
        f"--data_path {base}: no annotation file; looked for {looked}, and for YOLO's data.yaml and labels"
    )


def _image_roots(annotations: Path, split: str) -> tuple[Path, ...]:
    """Folders that a JSON's file names may be relative to: LVIS's and COCO's, then what exporters make."""
    home = annotations.parent.parent if annotations.parent.name == "annotations" else annotations.parent
    usual = [home, home / f"{split}2017", home / "train2017", home / "images"]
    return (*usual, *(folder / s for s in SPLIT_NAMES[split] for folder in (home / "images", home)))


def image_level_paths(data_path: str | Path, imagenet_path: str = "") -> SplitPaths:
    """JSON and image folders of the image-level data, or the folder of its class folders.

    imagenet_path: the folder, where it is given; else `imagenet-lvis` below data_path, or beside it where
        that is the LVIS folder itself.
    A JSON wins over class folders. Raises UserError naming the files that were looked for.
    """
    base = Path(data_path)
    candidates = [base / "imagenet-lvis", base.parent / "imagenet-lvis"]
    if imagenet_path:
        candidates = [Path(imagenet_path)]
    for folder in candidates:
        if (folder / IMAGE_LEVEL_JSON).is_file():
            return SplitPaths(folder / IMAGE_LEVEL_JSON, (folder / "images", folder))
    for folder in candidates:
        if root := class_root(folder):
            # A tar stands in for the folder of its name.
            return SplitPaths(root, (root if root.is_dir() else root.with_suffix(""),))
    looked = ", ".join(str(c / IMAGE_LEVEL_JSON) for c in candidates)
    raise UserError(
        f"no image-level data: looked for {looked}, and for a folder per class there; set imagenet_path, or "
        "use_imagenet=False"
    )


def image_root(paths: SplitPaths, annotations: AnnotationTable, probes: int = 64) -> Path:
    """The folder that the file names of `annotations` are relative to: where any of `probes` images is, as
    a file or in an archive that stands in for a folder.

    Raises UserError naming the first image and the folders that were tried.
    """
    if not len(annotations):
        raise UserError(f"{paths.annotations}: lists no images")
    step = max(1, len(annotations) // probes)
    names = [annotations.file_names[i] for i in range(0, len(annotations), step)]
    for root in paths.roots:
        files = ImageFolder(root)
        if any(files.find(name) for name in names):
            return root
    raise UserError(
        f"{paths.annotations}: its images are not where they should be; looked for {names[0]} "
        f"in {_listed(paths.roots)}"
    )


def _existing_folder(path: str | Path, what: str) -> Path:
    path = Path(path)
    if path.is_dir():
        return path
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(f"{what} {path}: no such folder.{nearest(path.name, beside)}")


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(str(f) for f in folders)
