"""Formats: what is written is read back by those who read it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.json_reader import read_annotations
from datasets.annotations.yolo import YoloSource
from datasets.evaluation.predictions import read_predictions
from inference.image_ids import ImageIds
from inference.prediction import Prediction
from inference.sources import Source
from inference.writers import FORMATS, Item, Results, parse_formats
from util.errors import UserError

NAMES = ("cup", "oat milk")
PIXELS = np.full((40, 80, 3), 90, np.uint8)
BOXES = [[8.0, 10.0, 24.0, 30.0], [-4.0, -2.0, 80.0, 44.0], [90.0, 5.0, 95.0, 9.0]]


def found() -> Prediction:
    labels = np.array([1, 0, 0])
    scores = np.array([0.9, 0.5, 0.25], np.float32)
    return Prediction(tuple(NAMES[i] for i in labels), scores, np.array(BOXES, np.float32), labels, (40, 80))


def nothing() -> Prediction:
    return found().select(np.zeros(3, bool))


def item(name: str) -> Item:
    return Item(Source(f"images/{name}", name), PIXELS)


def write(folder, *formats, ids=None, entries=(("a/x.jpg", found), ("b/x.jpg", nothing))):
    with Results(folder, formats or FORMATS, NAMES, ids) as results:
        for name, make in entries:
            results.add(item(name), make())


def test_all_formats_together(tmp_path):
    write(tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "a/x.jpg.drawn.jpg", "b/x.jpg.drawn.jpg", "predictions.json", "coco_results.json", "coco_images.json",
        "labels/a/x.txt", "labels/b/x.txt", "classes.txt", "predictions.csv",
    }  # fmt: skip


def test_json_is_a_list_of_entries(tmp_path):
    write(tmp_path, "json", "drawn")
    first, second = json.loads((tmp_path / "predictions.json").read_text())
    assert second["detections"] == []
    assert first == {
        "file": "images/a/x.jpg",
        "width": 80,
        "height": 40,
        "drawn": str(tmp_path / "a/x.jpg.drawn.jpg"),
        "detections": [
            {"name": name, "score": pytest.approx(score), "box_xyxy": box}
            for name, score, box in zip(found().names, (0.9, 0.5, 0.25), BOXES, strict=True)
        ],
    }
    with Image.open(first["drawn"]) as drawn:
        assert drawn.size == (960, 480)


def test_no_drawing_is_null_and_no_image_an_empty_list(tmp_path):
    write(tmp_path, "json")
    assert {e["drawn"] for e in json.loads((tmp_path / "predictions.json").read_text())} == {None}
    write(tmp_path, "json", "coco", entries=())
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert json.loads((tmp_path / "coco_images.json").read_text())["images"] == []


def test_an_error_leaves_the_older_file(tmp_path):
    write(tmp_path, "json", "csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError), Results(tmp_path, FORMATS, NAMES) as results:
        results.add(item("c.jpg"), found())
        raise ZeroDivisionError
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".json", ".csv")}
    assert after == before


def test_csv_has_a_row_a_detection(tmp_path):
    write(tmp_path, "csv")
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["file"], r["name"], float(r["score"])) for r in rows] == [
        ("images/a/x.jpg", name, pytest.approx(score))
        for name, score in zip(found().names, (0.9, 0.5, 0.25), strict=True)
    ]
    assert [float(rows[0][k]) for k in ("x1", "y1", "x2", "y2", "width", "height")] == [*BOXES[0], 80, 40]


def test_yolo_labels_train_a_model(tmp_path):
    (tmp_path / "images/train/a").mkdir(parents=True)
    for name in ("a/x.png", "y.png"):
        Image.fromarray(PIXELS).save(tmp_path / "images/train" / name)
    entries = (("train/a/x.png", found), ("train/y.png", nothing))
    write(tmp_path, "yolo", entries=entries)
    table = YoloSource.find(tmp_path, "train", "").read()
    assert [c.name for c in table.categories] == list(NAMES)
    # Clipped to the image; the box outside of it is gone.
    assert table.boxes_xywh == pytest.approx(np.array([[8, 10, 16, 20], [0, 0, 80, 40]]), abs=1e-3)
    assert table.category_index.tolist() == [1, 0] and table.image_index.tolist() == [0, 0]


def test_yolo_labels_of_images_that_differ_in_their_suffix(tmp_path):
    write(tmp_path, "yolo", entries=(("x.jpg", found), ("x.png", nothing)))
    assert (tmp_path / "labels/x.txt").read_text().count("\n") == 2
    assert (tmp_path / "labels/x.png.txt").read_text() == ""


def test_coco_results_have_a_table_of_ids(tmp_path):
    write(tmp_path, "coco", entries=(("b/x.jpg", nothing), ("a/x.jpg", found)))
    results = read_predictions(tmp_path / "coco_results.json")
    table = read_annotations(tmp_path / "coco_images.json")
    assert [table.file_names[i] for i in range(2)] == ["b/x.jpg", "a/x.jpg"]
    assert table.sizes.tolist() == [[40, 80]] * 2
    assert {c.id: c.name for c in table.categories} == dict(enumerate(NAMES, 1))
    assert results.image_ids.tolist() == [2, 2, 2] and results.category_ids.tolist() == [2, 1, 1]
    assert results.boxes_xywh()[0].tolist() == [8, 10, 16, 20]
    assert results.scores == pytest.approx([0.9, 0.5, 0.25])


def test_coco_results_with_the_ids_of_annotations(tmp_path):
    ids = ImageIds({"val/x.jpg": 70, "a/x.jpg": 71, "z.jpg": 72}, {"oat milk": 5})
    write(tmp_path, "coco", ids=ids, entries=(("a/x.jpg", found), ("c/x.jpg", found), ("c/z.jpg", found)))
    results = read_predictions(tmp_path / "coco_results.json")
    # cup is no class of the annotations, and two of their images are called x.jpg.
    assert results.image_ids.tolist() == [71, 72] and set(results.category_ids) == {5}
    assert not (tmp_path / "coco_images.json").exists()


def test_formats_are_checked():
    assert parse_formats("json, csv,json") == ("json", "csv")
    with pytest.raises(UserError, match=r"'jsn'.*Did you mean 'json'"):
        parse_formats("jsn")
    with pytest.raises(UserError, match="at least one"):
        parse_formats(" ,")
