"""A data format: the printed reader of CSV files is trained from, and diagnosed by the doctor."""

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
    """The splits of `tiny` as CSV, with the example's reader in the list."""
    monkeypatch.setattr(discovery, "READERS", list(discovery.READERS))
    run_example("A data format")
    root = tmp_path / "CSV"
    for split, count, first in (("train", 6, 1), ("val", 3, 100)):
        rows = []
        for name, boxes in tiny.detection_content(count, split, first)[1].items():
            file_name = name.rpartition("/")[2]
            tiny.draw(root / file_name, (60, 80), boxes)
            rows += [f"{file_name},{x},{y},{x + w},{y + h},{NAME_OF_ID[c]}\n" for (x, y, w, h), c in boxes]
        (root / f"{split}.csv").write_text("".join(rows))
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
    assert images.root == data


def test_it_is_trained_from_and_evaluated(data):
    parts = build_datasets(replace(CONFIG), RunSettings(str(data)))
    assert sorted(parts.classes.names) == sorted(NAME_OF_ID.values())
    assert len(parts.val_loader) == 3 and sum(len(targets.labels) for _, targets in parts.train_loader)


def test_the_doctor_knows_it(data):
    status, findings = diagnose(data)
    assert not [f for f in findings if "twice" not in f["what"] and "are in both" not in f["what"]], findings
    (data / "000000000002.png").write_bytes((data / "000000000002.png").read_bytes()[:60])
    (data / "val.csv").write_text("000000000100.png,1,2,3,cup\n")
    status, findings = diagnose(data)
    whats = [f["what"] for f in findings]
    assert status == 2 and any("damaged" in what for what in whats)
    assert any("val.csv line 1: is not image,x1" in what for what in whats)
    assert not any("data.yaml" in what for what in whats)


def test_the_message_for_no_data_names_it(tmp_path, data):
    (tmp_path / "empty").mkdir()
    _, findings = diagnose(tmp_path / "empty")
    assert "looked for" in findings[0]["what"] and "; train.csv" in findings[0]["what"]
