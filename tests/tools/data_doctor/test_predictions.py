"""A predictions file against the validation split."""

import json

import pytest

from tests.datasets import tiny
from tools.doctor import main


@pytest.fixture
def data(tmp_path):
    """A tiny LVIS set."""
    tiny.write_detection(tmp_path / "DATA", "train", 9)
    tiny.write_detection(tmp_path / "DATA", "val", 9, first_id=100)
    return tmp_path / "DATA"


def said(data, change, *options):
    """(status, {what: severity}) of perfect predictions after a change of each."""
    content, _ = tiny.detection_content(9, "val", first_id=100)
    perfect = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "score": 0.5 + a["id"] / 99,
        }
        for a in content["annotations"]
    ]
    file, out = data.parent / "p.json", data.parent / "found.json"
    file.write_text(
        json.dumps([p for i, entry in enumerate(perfect) if (p := entry | change(i, entry)).get("bbox")])
    )
    always = ["--plot", str(data.parent / "tail.png"), "--json", str(out)]
    status = main([str(data), "--predictions", str(file), *always, *options])
    return status, {f["what"]: f["severity"] for f in json.loads(out.read_text()) if f["where"] == "p.json"}


def test_right_predictions(data):
    _, found = said(data, lambda i, p: {})
    assert found == {"14 predictions of 9 of 9 images of lvis_v1_val.json": "note"}


@pytest.mark.parametrize(
    ("change", "severity", "what"),
    [
        (lambda i, p: {"image_id": p["image_id"] - 1}, "error", "1 predictions are of images that are not"),
        (
            lambda i, p: {"image_id": p["image_id"] - 100},
            "warning",
            "positions in the list of images, from 0",
        ),
        (lambda i, p: {"category_id": 77} if i == 0 else {}, "warning", "1 predictions are of classes that"),
        (lambda i, p: {"category_id": p["category_id"] - 1}, "warning", "the category ids are one too small"),
        (lambda i, p: {"bbox": [v / 80 for v in p["bbox"]]}, "warning", "the boxes are fractions"),
        (lambda i, p: {"bbox": [1, 2, 0, 4]} if i == 0 else {}, "warning", "1 predicted boxes have no area"),
        (lambda i, p: {"bbox": None}, "error", "there are no predictions"),
        (lambda i, p: {"score": "high"}, "error", "/p.json: prediction number 0"),
    ],
)
def test_mistakes(data, change, severity, what):
    status, found = said(data, change)
    assert [(s, w) for w, s in found.items() if what in w and s == severity], found
    assert status == 2 or "error" not in found.values()


def test_without_a_validation_split(data):
    (data / "lvis_v1" / "annotations" / "lvis_v1_val.json").unlink()
    _, found = said(data, lambda i, p: {})
    assert any("there are no validation annotations" in what for what in found)
