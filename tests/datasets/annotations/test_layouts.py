"""The same data in the layout of every tool: found by its path alone, read with the same boxes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.discovery import find_detection, find_split, open_detection
from datasets.annotations.source import split_of
from tests.layouts import coco, open_images, voc, yolo
from tests.layouts.drawn import CLASSES, as_drawn, as_read, of_split
from util.errors import UserError

SPLIT = (
    *(coco.coco, coco.cvat_project, coco.cvat_flat, coco.fiftyone_splits, coco.roboflow),
    *(yolo.ultralytics, yolo.roboflow, yolo.cvat, yolo.cvat_documented, yolo.fiftyone, yolo.darknet),
    *(yolo.lists, voc.devkit, voc.downloaded, voc.cvat_project, voc.roboflow, voc.fiftyone_splits),
    *(open_images.official, open_images.fiftyone),
)
WHOLE = (
    *(coco.cvat_task, coco.label_studio, coco.fiftyone, coco.roboflow_one, coco.one_json),
    *(yolo.cvat_task, yolo.cvat_ultralytics, yolo.label_studio, yolo.labelimg, yolo.roboflow_one),
    *(voc.cvat, voc.labelimg, voc.fiftyone, voc.label_studio),
)


def name_of(write):
    return f"{write.__module__.rpartition('.')[2]}-{write.__name__}"


@pytest.mark.parametrize("write", SPLIT, ids=name_of)
def test_both_splits_are_read_as_they_were_drawn(tmp_path, write):
    write(tmp_path)
    for split in ("train", "val"):
        compare(tmp_path, split, as_drawn(split))


@pytest.mark.parametrize("write", WHOLE, ids=name_of)
def test_a_set_that_is_not_split_is_for_training(tmp_path, write):
    write(tmp_path)
    compare(tmp_path, "train", as_drawn(None))
    assert find_split(tmp_path, "val") is None


def compare(root, split, expected):
    """What training reads with what was drawn, and what the doctor reads with that."""
    table, images = open_detection(root, split)
    assert as_read(table, images) == expected
    assert sorted(c.name for c in table.categories) == sorted(CLASSES)
    raw = find_detection(root, split).check()
    assert not raw.faults and list(raw.categories) == [
        replace(c, image_count=r.image_count) for c, r in zip(table.categories, raw.categories, strict=True)
    ]
    order = np.argsort(raw.box_image_ids, kind="stable")
    np.testing.assert_allclose(raw.boxes_xywh[order], table.boxes_xywh)
    assert list(raw.file_names) == [table.file_names[i] for i in range(len(table))]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda c: None, 3),
        (lambda c: c["annotations"][0].update(category_id=0), 4),
        (lambda c: c["categories"][1].update(supercategory="none"), 4),
        (lambda c: c["categories"][0].update(supercategory="all"), 4),
        (lambda c: c["categories"][0].update(id=9), 4),
        (lambda c: c["categories"].__delitem__(slice(1, 4)) or c["annotations"].clear(), 1),
    ],
)
def test_only_a_root_without_boxes_is_no_class(tmp_path, caplog, change, left):
    coco.roboflow(tmp_path)
    path = tmp_path / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    caplog.set_level("INFO")
    source = find_detection(tmp_path, "train")
    assert len(source.read().categories) == len(source.check().categories) == left
    assert ("'things' is the supercategory of all others" in caplog.text) == (left == 3)


def test_what_is_there_is_named_where_nothing_can_be_read(tmp_path):
    coco.write(tmp_path / "annotations" / "foo.json", {"images": [], "annotations": []})
    coco.write(tmp_path / "panoptic_train.json", {"images": [], "annotations": [{"segments_info": []}]})
    for number in range(60):
        coco.write(tmp_path / "labelme" / f"{number}.json", {"shapes": []})
    (tmp_path / "boxes.csv").write_text("a,b\n")
    with pytest.raises(UserError) as caught:
        find_detection(tmp_path, "train")
    message = str(caught.value)
    assert "no annotation file for train; there is panoptic_train.json (is panoptic), boxes.csv, " in message
    assert "annotations/foo.json (has no `categories`), 60 .json files in labelme; looked for" in message


def test_which_of_several_files_is_meant_is_not_guessed(tmp_path):
    for name in ("batch_1.json", "batch_2.json"):
        coco.write(tmp_path / name, coco.content([], str))
    with pytest.raises(UserError, match=r"batch_1\.json \(annotations, named for no split\), batch_2"):
        find_detection(tmp_path, "train")
    assert find_detection(tmp_path / "batch_2.json", "train").path.name == "batch_2.json"
    assert find_split(tmp_path / "batch_2.json", "val") is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_Train.json", "train"),
        ("instances_val2017.json", "val"),
        ("VALIDATION/labels.json", "val"),
        ("train/instances_test.json", "test"),
        ("annotations/trainval.json", ""),
        ("train_and_val/all.json", ""),
        ("evaluation.json", ""),
    ],
)
def test_what_a_name_says_of_the_split(name, split):
    assert split_of(Path(name)) == split


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("annotations/train/coco.json", "images/train"),
        ("annotations/instances_train2014.json", "images/train2014"),
        ("labels/train.json", "Train/data"),
        ("train/annotations/coco.json", "train/images"),
    ],
)
def test_images_are_found_wherever_tools_put_them(tmp_path, name, images):
    coco.write(tmp_path / name, coco.content(of_split(None), lambda i: f"{i.stem}.png"))
    for image in of_split(None):
        image.save(tmp_path / images / f"{image.stem}.png")
        Image.new("RGB", (9, 9)).save(path_in(tmp_path / "images" / "val", f"{image.stem}.png"))
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn(None)


def path_in(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def test_an_archive_that_was_unpacked_into_one_more_folder(tmp_path):
    coco.label_studio(tmp_path / "export" / "project-7")
    (tmp_path / "export.zip").touch()
    (tmp_path / "__MACOSX").mkdir()
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn(None)
    assert find_split(tmp_path, "val") is None
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"there is .*export\.zip"):
        find_detection(tmp_path, "train")


def test_data_that_is_not_split_says_so(tmp_path):
    coco.cvat_task(tmp_path)
    with pytest.raises(UserError) as caught:
        find_detection(tmp_path, "val")
    message = str(caught.value)
    assert "instances_default.json (annotations, named for no split)" in message
    assert "there is nothing but training data; looked for " in message and "YOLO" not in message
    assert message.endswith("val_share=0.2 takes a fifth of the training images for validation")
