import json
import shutil

import pytest

from datasets.annotations.discovery import find_detection, find_image_level
from tests.datasets import tiny
from util.errors import UserError


def image_root_of(source):
    return source.image_root(source.check().file_names)


@pytest.fixture
def data(tmp_path):
    return tiny.write_all(tmp_path / "DATA")


def test_both_the_data_folder_and_the_lvis_folder_are_accepted(data):
    for given in (data, data / "lvis_v1"):
        source = find_detection(given, "train")
        assert source.path == data / "lvis_v1" / "annotations" / "lvis_v1_train.json"
        assert image_root_of(source) == data / "lvis_v1"
        assert find_image_level(given).path.parent == data / "imagenet-lvis"


def test_json_beside_the_image_folders(data):
    for split in ("train", "val"):
        name = f"lvis_v1_{split}.json"
        shutil.move(data / "lvis_v1" / "annotations" / name, data / "lvis_v1" / name)
    source = find_detection(data, "val")
    assert source.path == data / "lvis_v1" / "lvis_v1_val.json"
    assert image_root_of(source) == data / "lvis_v1"


def test_coco_names_and_file_names_relative_to_the_split(data):
    home = data / "coco"
    shutil.move(data / "lvis_v1", home)
    shutil.move(home / "annotations" / "lvis_v1_val.json", home / "annotations" / "instances_val2017.json")
    source = find_detection(data, "val", "coco")
    text = source.path.read_text().replace("http://images.cocodataset.org/val2017/", "")
    source.path.write_text(text.replace("coco_url", "file_name"))
    assert image_root_of(source) == home / "val2017"


def test_a_given_imagenet_path_wins(data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data / "imagenet-lvis", other)
    assert find_image_level(data, str(other)).path.parent == other
    with pytest.raises(UserError, match=r"no image-level data: looked for .*nowhere.*set imagenet_path"):
        find_image_level(data, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: find_detection(d.parent / "DATE", "train"), r"DATE: no such folder.*'DATA'"),
        (lambda d: find_detection(d, "train", "lviss"), r"dataset_file 'lviss' is not one of.*'lvis'"),
        (
            lambda d: find_detection(d, "train", "coco"),
            r"looked for .*coco/annotations/instances_train2017\.json",
        ),
        (
            lambda d: find_detection(d / "imagenet-lvis", "val"),
            r"looked for .*annotations/lvis_v1_val\.json",
        ),
    ],
)
def test_what_was_looked_for_is_named(data, call, message):
    with pytest.raises(UserError, match=message) as caught:
        call(data)
    assert "\n" not in str(caught.value)


def test_absent_image_folders_are_named(data):
    shutil.rmtree(data / "lvis_v1" / "val2017")
    source = find_detection(data, "val")
    with pytest.raises(UserError, match=r"looked for val2017/000000000100\.png in .*lvis_v1"):
        image_root_of(source)


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("annotations/instances_train.json", "images"),
        ("annotations/train.json", "images/train"),
        ("train.json", "train"),
        ("train/_annotations.coco.json", "train"),
        ("instances_train2017.json", "train2017"),
    ],
)
def test_json_under_other_usual_names(tmp_path, name, images):
    content, drawn = tiny.detection_content(2, "train")
    for image, (old, boxes) in zip(content["images"], drawn.items(), strict=True):
        del image["coco_url"]
        image["file_name"] = old.rsplit("/", 1)[1]
        tiny.draw(tmp_path / images / image["file_name"], (60, 80), boxes)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    source = find_detection(tmp_path, "train")
    assert source.path == path
    assert image_root_of(source) == tmp_path / images


def test_open_vocabulary_accepts_files_without_rare_boxes(data):
    path = data / "lvis_v1" / "annotations" / "lvis_v1_train.json"
    for name in ("lvis_v1_train_rm_rare.json", "lvis_v1_train_norare.json"):
        path = path.rename(path.with_name(name))
        assert find_detection(data, "train", "lvis_openvocab").path == path
    with pytest.raises(UserError, match="no annotation file"):
        find_detection(data, "train")
