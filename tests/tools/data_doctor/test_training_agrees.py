"""The doctor says error exactly where a run stops, or where its metrics would mean nothing."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from datasets.build import RunSettings, build_datasets
from datasets.evaluation.evaluator import BoxEvaluator
from tests.datasets import tiny
from tests.datasets.annotations.test_yolo import CONFIG, write_yolo
from tests.tools.data_doctor.faulty_sets import coco, noise, write
from tools import doctor
from tools.doctor import main
from util.errors import UserError
from util.structures import Detections

NOTHING = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    """Drawing takes longer than the rest."""
    monkeypatch.setattr(doctor, "plot_tail", lambda *_: None)


def stops(data, out) -> str:
    """The message with which a run of one epoch with its evaluation stops; '' if it does not."""
    config = replace(CONFIG, use_imagenet=(data / "imagenet-lvis").exists())
    try:
        parts = build_datasets(config, RunSettings(str(data)))
        for _ in parts.train_loader:
            pass
        evaluator = BoxEvaluator(parts.val_annotations, parts.classes, out, damaged_ids=parts.damaged_val_ids)
        for _, targets in parts.val_loader:
            evaluator.update([int(i) for i in targets.image_ids], [NOTHING] * len(targets.image_ids))
        evaluator.finish()
    except UserError as error:
        return str(error)
    return ""


def errors(data) -> list[str]:
    """What the doctor calls errors."""
    out = data.parent / "found.json"
    status = main([str(data), "--plot", str(data.parent / "tail.png"), "--json", str(out)])
    found = [f["what"] for f in json.loads(out.read_text()) if f["severity"] == "error"]
    assert (status == 2) == bool(found)
    return found


@pytest.fixture(scope="module")
def lvis(tmp_path_factory):
    """Healthy, with image-level images, none a copy of another."""
    root = tiny.write_all(tmp_path_factory.mktemp("lvis") / "DATA", train=6, val=4, image_level=6)
    for seed, path in enumerate(sorted(root.rglob("*.png"))):
        noise(path, seed, Image.open(path).size[::-1])
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A healthy COCO set of more images."""
    root = tmp_path_factory.mktemp("coco") / "DATA"
    for split, images in (("train", 40), ("val", 24)):
        write(root, split, coco(root, split, images, classes=3))
    return root


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    """A healthy YOLO set."""
    root = write_yolo(tmp_path_factory.mktemp("yolo") / "DATA")
    for seed, path in enumerate(sorted(root.rglob("*.png"))):
        noise(path, seed, Image.open(path).size[::-1])
    return root


def in_json(split: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """The fault of changing the content of a JSON file."""

    def spoil(root: Path) -> None:
        path = next(root.rglob(f"*_{split}.json"))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def on_images(split: str, share: float, change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The fault of changing the files of a share of the images."""

    def spoil(root: Path) -> None:
        paths = sorted(p for p in root.rglob("*.png") if p.parent.name in (split, f"{split}2017"))
        for path in paths[: max(1, round(share * len(paths)))]:
            change(path)

    return spoil


def in_file(pattern: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """The fault of changing the text of a file."""

    def spoil(root: Path) -> None:
        path = sorted(root.rglob(pattern))[0]
        path.write_text(change(path.read_text()))

    return spoil


def first(name: str, **values: object) -> Callable[[dict], object]:
    """Changes the first entry of a list."""
    return lambda content: content[name][0].update(values)


def each(**values: object) -> Callable[[dict], object]:
    """Changes every box."""
    return lambda content: [entry.update(values) for entry in content["annotations"]]


def spoilt(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def other_size(path: Path) -> None:
    noise(path, len(str(path)), (33, 44))


# (data, fault): the doctor and a run have to agree on each.
FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "none": ("lvis", lambda root: None),
    "none, coco": ("plain", lambda root: None),
    "none, yolo": ("yolo", lambda root: None),
    "image id twice": ("lvis", in_json("train", lambda c: c["images"].append(c["images"][0]))),
    "image twice": ("lvis", in_json("train", lambda c: c["images"].append(c["images"][0] | {"id": 77}))),
    "image id is text": ("lvis", in_json("train", first("images", id="a"))),
    "image id is digits": ("lvis", in_json("train", first("images", id="1"))),
    "image id too large": ("lvis", in_json("val", first("images", id=2**64))),
    "file name is a number": ("lvis", in_json("train", first("images", file_name=5))),
    "no file name": ("plain", in_json("val", lambda c: c["images"][0].pop("file_name"))),
    "file name leads out": ("plain", in_json("train", first("images", file_name="../../a.png"))),
    "class id is text": ("lvis", in_json("train", first("annotations", category_id="red"))),
    "class not listed": ("lvis", in_json("val", first("annotations", category_id=44))),
    "image not listed": ("lvis", in_json("train", first("annotations", image_id=4444))),
    "three numbers": ("lvis", in_json("train", first("annotations", bbox=[1, 2, 3]))),
    "box of text": ("plain", in_json("val", first("annotations", bbox=["a", 2, 3, 4]))),
    "NaN in a box": ("plain", in_json("train", first("annotations", bbox=[1, 2, 3, float("nan")]))),
    "NaN in a box of val": ("plain", in_json("val", first("annotations", bbox=[1, 2, 3, float("nan")]))),
    "crowd is a word": ("plain", in_json("train", first("annotations", iscrowd="yes"))),
    "no width": ("lvis", in_json("train", first("annotations", bbox=[5, 5, 0, 9]))),
    "outside": ("lvis", in_json("train", first("annotations", bbox=[500, 5, 9, 9]))),
    "beyond": ("lvis", in_json("val", first("annotations", bbox=[70, 50, 20, 9]))),
    "annotation id twice": ("lvis", in_json("train", lambda c: c["annotations"][1].update(id=1))),
    "no boxes": ("lvis", in_json("train", lambda c: c["annotations"].clear())),
    "no boxes with a size": ("plain", in_json("train", each(bbox=[5, 5, 0, 0]))),
    "all boxes outside": ("plain", in_json("train", each(bbox=[500, 500, 9, 9]))),
    "all boxes are crowds": ("plain", in_json("train", each(iscrowd=1))),
    "no images": ("lvis", in_json("val", lambda c: c["images"].clear())),
    "no classes": ("lvis", in_json("train", lambda c: c["categories"].clear())),
    "class name twice": (
        "lvis", in_json("train", lambda c: c["categories"].append(c["categories"][0] | {"id": 9}))
    ),
    "class id twice": ("lvis", in_json("val", lambda c: c["categories"].append({"id": 1, "name": "x"}))),
    "class without boxes": (
        "lvis", in_json("train", lambda c: c["categories"].append({"id": 9, "name": "x"}))
    ),
    "class in val only": ("lvis", in_json("val", lambda c: c["categories"].append({"id": 9, "name": "x"}))),
    "classes alike": (
        "lvis", in_json("train", lambda c: c["categories"].append({"id": 9, "name": "Red Squares"}))
    ),
    "no key images": ("plain", in_json("train", lambda c: c.pop("images"))),
    "cut JSON": ("plain", in_file("*_val.json", lambda text: text[:300])),
    "HTML as JSON": ("plain", in_file("*_train.json", lambda text: "<html></html>")),
    "no val": ("plain", lambda root: next(root.rglob("*_val.json")).unlink()),
    "one image missing": ("plain", on_images("train", 0, Path.unlink)),
    "a few images missing": ("plain", on_images("val", 0.05, Path.unlink)),
    "half of the images missing": ("plain", on_images("train", 0.5, Path.unlink)),
    "half of the images of val missing": ("plain", on_images("val", 0.5, Path.unlink)),
    "all images of val missing": ("plain", on_images("val", 1, Path.unlink)),
    "one image damaged": ("plain", on_images("val", 0, spoilt)),
    "half of the images damaged": ("plain", on_images("train", 0.5, spoilt)),
    "images of another size": ("plain", on_images("val", 0.5, other_size)),
    "one image of another size": ("plain", on_images("train", 0, other_size)),
    "label row of 4 values": ("yolo", in_file("labels/train/*.txt", lambda text: "0 0.5 0.5 0.1")),
    "label row of pixels": ("yolo", in_file("labels/val/*.txt", lambda text: "0 30 20 10 10")),
    "class number too large": ("yolo", in_file("labels/train/*.txt", lambda text: "9 0.5 0.5 0.1 0.1")),
    "box beyond": ("yolo", in_file("labels/train/*.txt", lambda text: "0 0.9 0.5 0.4 0.1")),
    "no label files": ("yolo", lambda root: shutil.rmtree(root / "labels" / "train")),
    "no names": ("yolo", in_file("data.yaml", lambda text: text.partition("\n")[2])),
    "folder of train is elsewhere": ("yolo", in_file("data.yaml", lambda text: text.replace("/train", "/t"))),
    "image-level folder that matches nothing": (
        "lvis", lambda root: noise(root / "imagenet-lvis" / "images" / "zebra" / "1.png", 99)
    ),
    "image-level JSON of no class": (
        "lvis",
        in_file("imagenet_lvis_image_info.json", lambda text: text.replace("_square", "_cone")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_doctor_says_error_where_a_run_stops(fault, request, tmp_path):
    kind, spoil = FAULTS[fault]
    data = shutil.copytree(request.getfixturevalue(kind), tmp_path / "DATA")
    spoil(data)
    message, said = stops(data, tmp_path / "out"), errors(data)
    assert bool(said) == bool(message), (message, said)


MEANINGLESS = {
    "val has no boxes": (in_json("val", lambda c: c["annotations"].clear()), "there are no boxes"),
    "val boxes are fractions": (
        in_json("val", lambda c: [a.update(bbox=[v / 64 for v in a["bbox"]]) for a in c["annotations"]]),
        "boxes lie between 0 and 1",
    ),
    "an image in both": (
        lambda root: shutil.copy(root / "train/train_00000.png", root / "val/val_00000.png"),
        "are in both",
    ),
}


@pytest.mark.parametrize("fault", MEANINGLESS)
def test_and_where_metrics_would_mean_nothing(fault, plain, tmp_path):
    spoil, what = MEANINGLESS[fault]
    data = shutil.copytree(plain, tmp_path / "DATA")
    spoil(data)
    assert not stops(data, tmp_path / "out")
    assert any(what in said for said in errors(data))
