"""From the paths that the user gives to annotations and pictures, whatever form they have."""

from __future__ import annotations

from pathlib import Path

from datasets.annotation_cache import open_annotations
from datasets.class_folders import read_class_folders
from datasets.paths import IMAGE_LEVEL_JSON, detection_paths, image_level_paths, picture_root
from datasets.pictures import PictureFolder
from datasets.store import AnnotationStore
from datasets.yolo import open_yolo, read_yolo


def open_detection(
    data_path: str | Path, split: str, dataset_file: str = "lvis"
) -> tuple[AnnotationStore, PictureFolder]:
    """The box-annotated data of a split, 'train' or 'val'. Raises UserError naming what was looked for."""
    paths = detection_paths(data_path, split, dataset_file)
    if paths.annotations.suffix != ".json":
        yolo = open_yolo(paths.annotations, split)
        return read_yolo(yolo), PictureFolder(yolo.root)
    annotations = open_annotations(paths.annotations)
    return annotations, _pictures(picture_root(paths, annotations), annotations)


def open_image_level(data_path: str | Path, imagenet_path: str = "") -> tuple[AnnotationStore, PictureFolder]:
    """The pictures that have a label only: a JSON with its pictures, or a folder per class.

    Raises UserError naming what was looked for.
    """
    paths = image_level_paths(data_path, imagenet_path)
    if paths.annotations.name != IMAGE_LEVEL_JSON:
        annotations = read_class_folders(paths.annotations)
        return annotations, _pictures(paths.roots[0], annotations)
    annotations = open_annotations(paths.annotations)
    return annotations, _pictures(picture_root(paths, annotations), annotations)


def _pictures(root: Path, annotations: AnnotationStore) -> PictureFolder:
    pictures = PictureFolder(root)
    pictures.open_archives(annotations.file_names[i] for i in range(len(annotations)))
    return pictures
