import json
import shutil

import pytest

from datasets.annotations.discovery import detection_paths, image_level_paths, image_root
from datasets.annotations.json_reader import read_annotations
from tests.datasets import tiny
from util.errors import UserError


@pytest.fixture
def data(tmp_path):
    return tiny.write_all(tmp_path / "DATA")


def test_both_the_data_folder_and_the_lvis_folder_are_accepted(data):
    for given in (data, data / "lvis_v1"):
        paths = detection_paths(given, "train")
        assert paths.annotations == data / "lvis_v1" / "annotations" / "lvis_v1_train.json"
        assert image_root(paths, read_annotations(paths.annotations)) == data / "lvis_v1"
        assert image_level_paths(given).annotations.parent == data / "imagenet-lvis"


def test_json_beside_the_image_folders(data):
    for split in ("train", "val"):
        name = f"lvis_v1_{split}.json"
        shutil.move(data / "lvis_v1" / "annotations" / name, data / "lvis_v1" / name)
    paths = detection_paths(data, "val")
    assert paths.annotations == data / "lvis_v1" / "lvis_v1_val.json"
    assert image_root(paths, read_annotations(paths.annotations)) == data / "lvis_v1"


def test_coco_names_and_file_names_relative_to_the_split(data):
    home = data / "coco"
    shutil.move(data / "lvis_v1", home)
    shutil.move(home / "annotations" / "lvis_v1_val.json", home / "annotations" / "instances_val2017.json")
    paths = detection_paths(data, "val", "coco")
    text = paths.annotations.read_text().replace("http://images.cocodataset.org/val2017/", "")
    paths.annotations.write_text(text.replace("coco_url", "file_name"))
    assert image_root(paths, read_annotations(paths.annotations)) == home / "val2017"


def test_a_given_imagenet_path_wins(data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data / "imagenet-lvis", other)
    assert image_level_paths(data, str(other)).annotations.parent == other
    with pytest.raises(UserError, match=r"no image-level data: looked for .*nowhere.*set imagenet_path"):
        image_level_paths(data, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: detection_paths(d.parent / "DATE", "train"), r"DATE: no such folder.*'DATA'"),
        (lambda d: detection_paths(d, "train", "lviss"), r"dataset_file 'lviss' is none of.*'lvis'"),
        (
            lambda d: detection_paths(d, "train", "coco"),
            r"looked for coco/annotations/instances_train2017\.json",
        ),
        (
            lambda d: detection_paths(d / "imagenet-lvis", "val"),
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
    paths = detection_paths(data, "val")
    with pytest.raises(UserError, match=r"looked for val2017/000000000100\.png in .*lvis_v1"):
        image_root(paths, read_annotations(paths.annotations))


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
    paths = detection_paths(tmp_path, "train")
    assert paths.annotations == path
    assert image_root(paths, read_annotations(path)) == tmp_path / images


def test_open_vocabulary_accepts_files_without_rare_boxes(data):
    path = data / "lvis_v1" / "annotations" / "lvis_v1_train.json"
    for name in ("lvis_v1_train_rm_rare.json", "lvis_v1_train_norare.json"):
        path = path.rename(path.with_name(name))
        assert detection_paths(data, "train", "lvis_openvocab").annotations == path
    with pytest.raises(UserError, match="no annotation file"):
        detection_paths(data, "train")
