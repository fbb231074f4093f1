"""Several data sets: each by itself, and what becomes of their classes."""

import json

import pytest

from tests.datasets.annotations.test_yolo import write_yolo
from tests.tools.data_doctor.test_copies import write_set
from tools.doctor import main
from util.errors import UserError


def diagnose(*words, folder):
    """(exit status, findings)."""
    out = folder / "found.json"
    status = main([*map(str, words), "--plot", str(folder / "tail.png"), "--json", str(out)])
    return status, json.loads(out.read_text())


def named(*names):
    """The change of the class names of both splits to these, in order."""

    def change(train, val):
        for content in (train, val):
            for entry, name in zip(content["categories"], names, strict=False):
                entry["name"] = name

    return change


def test_the_classes_of_all_sets(tmp_path):
    a = write_set(tmp_path / "A", named("sofa", "traffic light", "pink"))
    b = write_set(tmp_path / "B", named("couch", "Traffic_Light", "zebra"))
    _, findings = diagnose(a, b, folder=tmp_path)
    ours = {f["what"]: f["examples"] for f in findings if f["where"] == "all data sets"}
    assert ours["10 classes, 6 of them in several sets; 2 in A only, 2 in B only"] == []
    said = {f["where"] for f in findings}
    assert {"A: train", "B: train"} <= said
    assert (tmp_path / "tail.png").is_file()


def test_classes_that_are_one_by_synonym_are_named(tmp_path):
    def synonyms(train, val):
        for content in (train, val):
            content["categories"][0] |= {"name": "sofa", "synonyms": ["couch"]}

    a, b = write_set(tmp_path / "A", synonyms), write_set(tmp_path / "B", named("couch"))
    _, findings = diagnose(a, b, folder=tmp_path)
    (examples,) = [f["examples"] for f in findings if "have different names in different sets" in f["what"]]
    assert examples == ["'sofa' of A is 'couch' of B (same synonym)"]


def test_what_stops_a_run_on_several_sets_is_an_error(tmp_path):
    a = write_set(tmp_path / "A")
    yolo = write_yolo(tmp_path / "yolo")
    status, findings = diagnose(a, yolo, folder=tmp_path)
    assert [f["what"] for f in findings if f["severity"] == "error" and f["where"] == "start of a run"] == []
    (yolo / "data.yaml").write_text("names: [a, b, c]\n")
    status, findings = diagnose(a, yolo, folder=tmp_path)
    assert status == 2
    with pytest.raises(UserError, match="twice"):
        diagnose(a, a, folder=tmp_path)


def without_validation(root):
    (root / "annotations" / "instances_val.json").unlink()
    return root


def test_a_set_without_validation(tmp_path):
    a, b = without_validation(write_set(tmp_path / "A")), write_set(tmp_path / "B", images=8)
    status, findings = diagnose(a, folder=tmp_path)
    assert status == 2 and any("val" in f["where"] for f in findings if f["severity"] == "error")
    status, findings = diagnose(a, "--options", "val_share=0.3", folder=tmp_path)
    assert status == 0
    status, findings = diagnose(a, b, folder=tmp_path)
    assert ("note", "A: val", "there is no validation split") in [
        (f["severity"], f["where"], f["what"]) for f in findings
    ]
    assert not [f for f in findings if f["severity"] == "error" and f["where"].startswith("start")]
    without_validation(b)
    status, findings = diagnose(a, b, folder=tmp_path)
    (error,) = [f["what"] for f in findings if f["severity"] == "error"]
    assert status == 2 and "none of A, B has a validation split" in error


def test_options_are_those_of_a_run(tmp_path):
    a = write_set(tmp_path / "A")
    status, findings = diagnose(a, "--options", "classes=anchor,baskt", folder=tmp_path)
    assert status == 2 and any("baskt" in f["what"] for f in findings if f["severity"] == "error")
    with pytest.raises(UserError, match="val_shre"):
        diagnose(a, "--options", "val_shre=0.1", folder=tmp_path)
