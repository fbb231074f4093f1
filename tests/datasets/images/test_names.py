"""Names of images as tools on other machines write them lead to the files that are meant, or to none."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.discovery import open_detection
from datasets.build import RunSettings, build_datasets
from datasets.images import names as rules
from datasets.images.header import inspect_file
from datasets.images.limits import read_file
from datasets.images.preprocess import ImageError, MissingImageError
from datasets.images.reader import ImageFolder
from inference.inputs import read_image
from tests.datasets.annotations.test_yolo import CONFIG
from util.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "äpfel.jpg") for form in ("NFC", "NFD"))


def put(path, level=50, size=(12, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)


def resolved(root, *names):
    """Name -> (rule, file) or, of missing ones, what is there instead."""
    located = ImageFolder(root).resolve(names)
    return {**located.found, **located.missing}


@pytest.mark.parametrize(
    ("name", "file", "rule"),
    [
        ("train/a.jpg", "train/a.jpg", None),
        ("./train//a.jpg", "train/a.jpg", None),
        ("train\\a.jpg", "train/a.jpg", rules.SLASHES),
        (".\\train\\a.jpg", "train/a.jpg", rules.SLASHES),
        ("train/a%20b.jpg", "train/a b.jpg", rules.ENCODED),
        ("train/a%20b.jpg", "train/a%20b.jpg", None),
        ("/data/local-files/?d=train%5Ca.jpg", "train/a.jpg", rules.ENCODED),
        (f"train/{NFD}", f"train/{NFC}", rules.UNICODE),
        (f"train/{NFC}", f"train/{NFD}", rules.UNICODE),
        ("/home/x/data/train/a.jpg", "train/a.jpg", rules.FOLDER),
        ("C:\\Users\\x\\train\\a.jpg", "train/a.jpg", rules.FOLDER),
        ("https://host.example/bucket/train/a.jpg", "train/a.jpg", rules.FOLDER),
        ("../images/train/a.jpg", "train/a.jpg", rules.FOLDER),
        ("images/a.jpg", "deep/er/a.jpg", rules.FOLDER),
        ("a.jpg", "deep/er/a.jpg", rules.FOLDER),
        ("train/A.JPG", "train/a.jpg", rules.CASE),
        ("TRAIN/a.jpg", "train/a.jpg", rules.CASE),
        ("train/a.jpg", "train/a.JPG", rules.CASE),
        ("train/a.jpg", "train/a.png", rules.SUFFIX),
        ("train/a", "train/a.jpg", rules.SUFFIX),
        ("images/0123abcd-a.jpg", "train/a.jpg", rules.UPLOAD),
        ("images/0123abcd-a.jpg", "train/0123abcd-a.jpg", rules.FOLDER),
    ],
)
def test_names(tmp_path, name, file, rule):
    put(tmp_path / file)
    put(tmp_path / "train" / "other.jpg")
    images = ImageFolder(tmp_path, inside=tmp_path)
    located = images.resolve([name])
    assert located.found == ({} if rule is None else {name: (rule, file)}) and not located.missing
    assert images.read(name).shape == (12, 16, 3) and images.find(name) is not None


@pytest.mark.parametrize(
    ("name", "files", "instead"),
    [
        ("a.jpg", ["x/a.jpg", "y/a.jpg"], "x/a.jpg, y/a.jpg"),
        ("b.jpg", ["x/a.jpg"], ""),
        # The folder is there: what lies elsewhere is another image.
        ("val/1.jpg", ["val/2.jpg", "train/1.jpg"], "train/1.jpg"),
        ("/home/x/val/1.jpg", ["val/2.jpg", "1.jpg"], "1.jpg"),
        ("a.jpg", ["a.png", "a.webp"], "a.png, a.webp"),
        ("a.jpg", ["w/a.jpg", "x/a.jpg", "y/a.jpg"], "w/a.jpg, x/a.jpg and more"),
        ("a.txt", ["a.jpg"], ""),
        ("", ["a.jpg"], ""),
        ("..", ["a.jpg"], ""),
        ("//", ["a.jpg"], ""),
        ("n" * 5000 + ".jpg", ["a.jpg"], ""),
        ("a\0b.jpg", ["a.jpg"], ""),
        ("\udce4.jpg", ["a.jpg"], ""),
    ],
)
def test_what_is_missing_and_what_is_there(tmp_path, name, files, instead):
    for file in files:
        put(tmp_path / file)
    assert resolved(tmp_path, name) == {name: instead}


def test_more_of_the_folders_decide(tmp_path):
    for file in ("x/train/a.jpg", "x/val/a.jpg"):
        put(tmp_path / file)
    assert resolved(tmp_path, "D:\\Val\\a.jpg") == {"D:\\Val\\a.jpg": (rules.FOLDER, "x/val/a.jpg")}


def test_two_names_do_not_share_a_file_unless_they_are_the_same_but_for_spelling(tmp_path):
    put(tmp_path / "here/1.jpg")
    found = resolved(tmp_path, "/home/a/1.jpg", "/home/b/1.jpg")
    assert set(found.values()) == {"here/1.jpg, which 2 names would mean"}
    assert resolved(tmp_path, "here\\1.jpg", ".\\here\\1.jpg")["here\\1.jpg"] == (rules.SLASHES, "here/1.jpg")
    put(tmp_path / "1.png")
    found = resolved(tmp_path, "1.png", "1.jpg")
    assert found == {"1.jpg": (rules.FOLDER, "here/1.jpg")}
    (tmp_path / "here/1.jpg").unlink()
    assert resolved(tmp_path, "1.png", "1.jpg") == {"1.jpg": "1.png, which 2 names would mean"}


def test_only_odd_names_cost_a_listing_of_everything(tmp_path, monkeypatch):
    for i in range(200):
        put(tmp_path / f"train/{i}.jpg", size=(2, 2))
    monkeypatch.setattr(rules, "images_below", lambda root: pytest.fail("lists all of it"))
    images = ImageFolder(tmp_path)
    asked = []
    monkeypatch.setattr(images, "_find", lambda name: asked.append(name))
    assert images.resolve([f"train/{i}.jpg" for i in range(200)]) == ({}, {}) and not asked


def write_coco(folder, split, names, size=(12, 16)):
    images = [
        {"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in enumerate(names, 1)
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 8, 8]} for i in range(1, len(images) + 1)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "red"}]}
    (folder / f"{split}.json").write_text(json.dumps(content))


def test_a_line_counts_the_names_by_rule(tmp_path, caplog):
    for i in range(3):
        put(tmp_path / f"images/{i}.jpg", 40 * i)
    put(tmp_path / "images/9.png", 200)
    names = ["C:\\me\\images\\0.jpg", "D:\\me\\images\\1.jpg", "images/2.jpg", "images/9.jpg"]
    write_coco(tmp_path, "train", names)
    table, images = open_detection(tmp_path, "train")
    (line,) = [r.getMessage() for r in caplog.records]
    assert line == (
        f"{tmp_path / 'train.json'}: 3 of 4 images have other names than their files: 2 in another folder "
        r"(first: 'C:\\me\\images\\0.jpg' is images/0.jpg); 1 with another suffix "
        "(first: 'images/9.jpg' is images/9.png)"
    )
    levels = [round(float(images.read(table.file_names[i]).mean()), -1) for i in range(4)]
    assert levels == [0, 40, 80, 200]


def test_all_names_of_another_machine(tmp_path):
    for i in range(3):
        put(tmp_path / f"images/train/{i}.jpg")
    write_coco(tmp_path, "train", [f"/home/x/{i}.jpg" for i in range(3)])
    _, images = open_detection(tmp_path, "train")
    assert images.read("/home/x/2.jpg").shape == (12, 16, 3)


def data_with_missing(folder, train=(), val=()):
    for split, gone in (("train", train), ("val", val)):
        names = [f"{split}/{i}.jpg" for i in range(10)]
        for i, name in enumerate(names):
            if i not in gone:
                put(folder / "images" / name)
        write_coco(folder, split, names)
    return folder


def test_missing_images_are_said_before_the_first_step_and_never_called_damaged(tmp_path, caplog):
    data_with_missing(tmp_path, train=(3,), val=(1, 4))
    parts = build_datasets(CONFIG, RunSettings(str(tmp_path)))
    lines = [r.getMessage() for r in caplog.records if "missing" in r.getMessage()]
    assert [line.split(str(tmp_path))[0] for line in lines] == [
        "val.json: 2 of 10 images are missing; the metrics leave them out; first: ",
        "train.json: 1 of 10 images are missing; others are drawn in their place; first: ",
    ]
    caplog.clear()
    list(parts.train_loader), list(parts.val_loader)
    assert not caplog.records, "said once"
    assert parts.train_loader.missing() == ["train/3.jpg"] and parts.damaged_val_ids() == [2, 5]
    assert parts.train_loader.damaged() == parts.val_loader.damaged() == []


@pytest.mark.parametrize("gone", [range(4), range(9)])
def test_too_many_missing_images_end_the_run_before_the_first_step(tmp_path, gone):
    data_with_missing(tmp_path, val=gone)
    with pytest.raises(
        UserError, match=rf"val\.json: {len(gone)} of 10 images are missing, which is more than"
    ):
        build_datasets(CONFIG, RunSettings(str(tmp_path)))


def test_an_image_that_vanishes_is_missing_too(tmp_path, caplog):
    parts = build_datasets(CONFIG, RunSettings(str(data_with_missing(tmp_path))))
    (tmp_path / "images/val/7.jpg").unlink()
    list(parts.val_loader)
    assert parts.val_loader.missing() == ["val/7.jpg"] and parts.val_loader.damaged() == []
    assert "no such image; the metrics leave it out (1 missing so far)" in caplog.text


def test_what_is_no_file_is_missing_with_the_reason(tmp_path):
    put(tmp_path / "a.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    images = ImageFolder(tmp_path)
    names = {
        "folder.jpg": "a folder",
        "pipe.jpg": "a pipe or device",
        "n" * 300 + ".jpg": "File name too long",
        "a.jpg/b.jpg": "Not a directory",
        "a\0.jpg": "embedded null byte",
    }
    assert set(images.resolve([*names, "a.jpg"]).missing) == set(names)
    for name, reason in names.items():
        with pytest.raises(MissingImageError, match=rf"no such image \({reason}\)"):
            images.open(name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for read in (inspect_file, read_file):
        with pytest.raises(OSError, match="a pipe or device, not a file"):
            read(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"pipe\.jpg: cannot be read \(a pipe"):
        read_image(tmp_path / "pipe.jpg")
