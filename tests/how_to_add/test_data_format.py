"""A data format: the printed Pascal VOC reader is trained from, and diagnosed by the doctor."""

import json
from dataclasses import replace

import pytest

from datasets.annotations import discovery
from datasets.annotations.discovery import open_detection
from datasets.build import RunSettings, build_datasets
from tests.datasets import tiny
from tests.datasets.annotations.test_yolo import CONFIG
from tests.how_to_add.example import run_example
from tools.doctor import main

NAME_OF_ID = {identity: name for name, identity, _ in tiny.CLASSES}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The splits of `tiny` as VOC has them, with the example's reader in the list."""
    monkeypatch.setattr(discovery, "READERS", list(discovery.READERS))
    run_example("A data format")
    root = tmp_path / "VOC"
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count, first in (("train", 6, 1), ("val", 3, 100)):
        drawn = tiny.detection_content(count, split, first)[1]
        stems = []
        for name, boxes in drawn.items():
            file_name = name.rpartition("/")[2]
            stems.append(file_name.removesuffix(".png"))
            tiny.draw(root / "JPEGImages" / file_name, (60, 80), boxes)
            objects = "".join(
                f"<object><name>{NAME_OF_ID[c]}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                for (x, y, w, h), c in boxes
            )
            (root / "Annotations" / f"{stems[-1]}.xml").write_text(
                f"<annotation><filename>{file_name}</filename>"
                f"<size><width>80</width><height>60</height></size>{objects}</annotation>"
            )
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return root


def diagnose(data):
    out = data.parent / "found.json"
    status = main([str(data), "--plot", str(data.parent / "tail.png"), "--json", str(out)])
    return status, [f for f in json.loads(out.read_text()) if f["severity"] != "note"]


def test_its_boxes_are_those_of_the_lvis_file(data):
    table, images = open_detection(data, "train")
    content = tiny.detection_content(6, "train")[0]
    assert table.boxes_xywh.tolist() == [a["bbox"] for a in content["annotations"]]
    classes = [table.categories[i].name for i in table.category_index]
    assert classes == [NAME_OF_ID[a["category_id"]] for a in content["annotations"]]
    assert {c.name: c.image_count for c in table.categories} == {
        "red_square": 6, "green_square": 3, "blue_square": 1,
    }  # fmt: skip
    assert images.root == data / "JPEGImages"


def test_it_is_trained_from_and_evaluated(data):
    parts = build_datasets(replace(CONFIG), RunSettings(str(data)))
    assert sorted(parts.classes.names) == sorted(NAME_OF_ID.values())
    assert len(parts.val_loader) == 3 and sum(len(targets.labels) for _, targets in parts.train_loader)


def test_the_doctor_knows_it(data):
    status, findings = diagnose(data)
    assert not [f for f in findings if "twice" not in f["what"] and "are in both" not in f["what"]], findings
    (data / "JPEGImages" / "000000000002.png").unlink()
    (data / "Annotations" / "000000000100.xml").write_text("<annotation>")
    status, findings = diagnose(data)
    whats = [f["what"] for f in findings]
    assert status == 2 and "1 images are missing" in whats
    assert any("000000000100.xml: cannot be read" in what for what in whats)
    assert not any("data.yaml" in what for what in whats)


def test_the_message_for_no_data_names_it(tmp_path, data):
    (tmp_path / "empty").mkdir()
    _, findings = diagnose(tmp_path / "empty")
    assert "looked for" in findings[0]["what"] and "VOC's ImageSets/Main/train.txt" in findings[0]["what"]
