"""Copies of images, in one split, in two, and in several data sets."""

import json
import shutil

from tests.tools.data_doctor.faulty_sets import coco, write
from tools.doctor import main


def write_set(root, change=lambda train, val: None, images=6):
    """A COCO set; `change` sees the contents of both files before they are written."""
    train, val = coco(root, "train", images), coco(root, "val", images)
    change(train, val)
    write(root, "train", train)
    write(root, "val", val)
    return root


def copies(*paths):
    """where -> (severity, examples) of what is said of copies."""
    out = paths[0].parent / "found.json"
    main([*map(str, paths), "--plot", str(paths[0].parent / "tail.png"), "--json", str(out)])
    findings = [
        f for f in json.loads(out.read_text()) if "same content" in f["what"] or "in both" in f["what"]
    ]
    return [(f["severity"], f["where"], f["examples"]) for f in findings]


def same_boxes(content, image, other):
    """Gives image `other` the boxes of `image` instead of its own."""
    theirs = [a for a in content["annotations"] if a["image_id"] != other]
    mine = [a for a in theirs if a["image_id"] == image]
    content["annotations"] = theirs + [a | {"id": 1000 + a["id"], "image_id": other} for a in mine]


def test_copies_within_a_split(tmp_path):
    root = write_set(tmp_path / "A", lambda train, _: same_boxes(train, 1, 3))
    assert copies(root) == []
    for number in (2, 4):
        shutil.copy(root / "train/train_00000.png", root / f"train/train_{number:05d}.png")
    (differ, same) = copies(root)
    assert same == ("note", "train", ["train_00000.png and train_00002.png"])
    assert differ[:2] == ("warning", "train")
    (example,) = differ[2]
    assert example.startswith("train_00000.png and train_00004.png: ") and "0 and 1 boxes" in example


def test_a_box_elsewhere_is_another_label(tmp_path):
    def change(train, _):
        same_boxes(train, 1, 3)
        train["annotations"][-1]["bbox"] = [50.0, 40.0, 5.0, 5.0]

    root = write_set(tmp_path / "A", change)
    shutil.copy(root / "train/train_00000.png", root / "train/train_00002.png")
    ((severity, _, (example,)),) = copies(root)
    assert severity == "warning" and example.endswith("elsewhere")


def test_sets_that_contradict_each_other_on_shared_images(tmp_path):
    a, b = write_set(tmp_path / "A"), write_set(tmp_path / "B", images=8)
    ((severity, where, examples), leak_or_val) = sorted(copies(a, b), key=lambda f: f[1])[:2]
    assert (severity, where) == ("note", "A: train, B: train") and len(examples) == 6
    assert leak_or_val[:2] == ("note", "A: val, B: val")

    def other_class(train, _):
        train["annotations"][0]["category_id"] = 5

    c = write_set(tmp_path / "C", other_class)
    found = {where: (severity, examples) for severity, where, examples in copies(a, c) if severity != "note"}
    assert list(found) == ["A: train, C: train"]
    assert found["A: train, C: train"] == (
        "warning", ["train_00000.png and train_00000.png: basket 1 and 0 boxes, engine 0 and 1 boxes"]
    )  # fmt: skip


def test_a_class_that_one_set_did_not_look_for_is_no_contradiction(tmp_path):
    def half(train, _):
        """Only classes 1 to 4 are labelled."""
        train["annotations"] = [a for a in train["annotations"] if a["category_id"] <= 4]
        train["categories"] = train["categories"][:4]

    def stated(train, _):
        """The same by a list for every image."""
        train["annotations"] = [a for a in train["annotations"] if a["category_id"] <= 4]
        for image in train["images"]:
            image["labelled_category_ids"] = [1, 2, 3, 4]

    whole = write_set(tmp_path / "A")
    for name, change in (("B", half), ("C", stated)):
        other = write_set(tmp_path / name, change)
        assert not [f for f in copies(whole, other) if f[0] == "warning"], name


def test_training_images_of_one_set_in_the_validation_of_another(tmp_path):
    a, b = write_set(tmp_path / "A"), write_set(tmp_path / "B", images=3)
    shutil.copy(b / "train/train_00001.png", a / "val/val_00005.png")
    leaks = [f for f in copies(a, b) if f[0] == "error"]
    assert ("error", "B: train, A: val", ["train_00001.png is val_00005.png"]) in leaks
