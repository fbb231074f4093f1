"""The readers of annotations that are not JSON."""

from pathlib import Path

import numpy as np

from datasets.annotations.open_images import OpenImagesSource
from datasets.annotations.voc import VocSource
from datasets.annotations.voc_xml import read_voc
from datasets.annotations.yolo_labels import LabelReader
from datasets.annotations.yolo_layout import YoloFolder
from datasets.annotations.yolo_lists import listed_images
from tests.fuzz.readers import reader
from tests.layouts import open_images, voc
from tests.layouts.drawn import drawn


@reader("labels.txt", "0 0.5 0.5 0.2 0.25\n2 0.1 0.2 0.1 0.1\n1 0.1 0.1 0.2 0.1 0.2 0.2\n")
def use_yolo_labels(path: Path) -> None:
    LabelReader(["cup", "urn", "kite"]).read(path)


def _yolo(folder: Path) -> bytes:
    drawn()[0].save(folder / "images" / "train" / "a.png")
    return b"path: .\ntrain: images/train\nval: images/train\nnc: 3\nnames:\n  0: cup\n  1: urn\n  2: kite\n"


@reader("data.yaml", _yolo)
def use_yolo_yaml(path: Path) -> None:
    assert YoloFolder.open(path).split("train").categories


def _darknet(folder: Path) -> bytes:
    _yolo(folder)
    (folder / "obj.names").write_text("cup\nurn\nkite\n")
    (folder / "train.txt").write_text("data/images/train/a.png\n")
    return b"classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"


@reader("obj.data", _darknet)
def use_darknet(path: Path) -> None:
    assert YoloFolder.open(path).split("train").categories


def _image_lists(folder: Path) -> bytes:
    _yolo(folder)
    return b"./images/train/a.png\ndata/images/train/a.png\nC:\\x\\images\\train\\a.png\n"


@reader("train.txt", _image_lists)
def use_yolo_list(path: Path) -> None:
    found, missing = listed_images(path, path.parent)
    assert all(name.endswith(".png") for name in found) and all("\n" not in line for line in missing)


@reader("a.xml", voc.xml(drawn()[2], "a.png", voc.DEVKIT))
def use_voc(path: Path) -> None:
    said = read_voc(path)
    assert len(said.size) == 2 and all("\n" not in fault for fault in said.faults)


def _voc_list(folder: Path) -> bytes:
    voc.labelimg(folder / "Annotations")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    return b'frame_000000\nframe_000001  1\n"frame_000002"\n'


@reader("list.txt", _voc_list)
def use_voc_list(path: Path) -> None:
    (path.parent / "ImageSets" / "Main" / "train.txt").write_bytes(path.read_bytes())
    if source := VocSource.find(path.parent, "train", "lvis"):
        source.check()


def _open_images(folder: Path, name: str) -> bytes:
    open_images.official(folder)
    return (folder / name).read_bytes()


def _read_open_images(path: Path) -> None:
    source = OpenImagesSource.find(path.parent, "val", "lvis")
    assert source is not None
    raw = source.check()
    assert np.isfinite(raw.boxes_xywh).all()


@reader("validation-annotations-bbox.csv", lambda f: _open_images(f, "validation-annotations-bbox.csv"))
def use_open_images_boxes(path: Path) -> None:
    _read_open_images(path)


LABELS = "validation-annotations-human-imagelabels-boxable.csv"


@reader(LABELS, lambda folder: _open_images(folder, LABELS))
def use_open_images_labels(path: Path) -> None:
    _read_open_images(path)


@reader("class-descriptions-boxable.csv", lambda f: _open_images(f, "class-descriptions-boxable.csv"))
def use_open_images_classes(path: Path) -> None:
    _read_open_images(path)
