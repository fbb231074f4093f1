"""Folds of a small data set: near-duplicates stay together, classes are on both sides."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from config import Config
from datasets.annotations.json_reader import read_annotations
from datasets.build import build_datasets
from datasets.run_data import RunSettings
from tests.datasets import tiny
from tools.ablation.folds import make_folds
from tools.ablation.near_duplicates import near_duplicates
from util.errors import UserError

SIDE = 64


def scene(number: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: a coarse random pattern."""
    coarse = np.random.default_rng(number).integers(0, 256, (9, 9)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB"))


def mixed(pixels: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return np.round((1 - share) * pixels + share * other).astype(np.uint8)


def write(folder: Path, images: dict[str, np.ndarray]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / name)
    return [folder / name for name in images]


def test_groups_are_what_pairs_connect(tmp_path):
    near = mixed(scene(1), scene(50), 0.2)
    files = write(
        tmp_path,
        {
            "a.png": scene(1),
            "b.png": scene(2),
            "c.png": near,
            "d.png": mixed(near, scene(51), 0.2),
            "e.png": scene(3),
            "f.png": mixed(scene(3), scene(52), 0.35),
        },
    )
    assert near_duplicates(files, [""] * 6).tolist() == [0, 1, 0, 0, 2, 3]
    # Rather alike, and taken one after the other, or of one photograph.
    for names in (("IMG_0007_jpg.rf.0a.jpg", "IMG_0008_jpg.rf.0b.jpg"), ("x_7.rf.0a.jpg", "x_7.rf.0b.jpg")):
        assert near_duplicates(files[4:], names).tolist() == [0, 0]
    for names in (("IMG_7.jpg", "IMG_9.jpg"), ("IMG_7.jpg", "DSC_8.jpg"), ("IMG.jpg", "IMG_8.jpg")):
        assert near_duplicates(files[4:], names).tolist() == [0, 1]
    # Not alike at all.
    assert near_duplicates(files[:2], ["IMG_7.jpg", "IMG_8.jpg"]).tolist() == [0, 1]
    (tmp_path / "g.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"g\.png: cannot be read as an image"):
        near_duplicates([tmp_path / "g.png"], [""])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """24 training and 6 validation images, in pairs of near-duplicates, across the splits too.

    Red is on every image, green on every third pair, blue on one pair alone."""
    root = tmp_path_factory.mktemp("data")
    for split, numbers in (("train", range(24)), ("val", range(20, 26))):
        images, annotations = [], []
        for number in numbers:
            first, second = divmod(number + (split == "val") * 30, 2)
            name = f"{split}2017/{number:012d}.png"
            # Validation image 20 is one more version of the pair of training images 0 and 1.
            pair = 0 if (split, number) == ("val", 20) else first
            write(
                root / "lvis_v1" / f"{split}2017",
                {f"{number:012d}.png": mixed(scene(pair), scene(99), 0.1 * second)},
            )
            shown = [1] + [2] * (pair % 3 == 0) + [5] * (pair == 4)
            images.append(
                {
                    "id": number + 1,
                    "height": SIDE,
                    "width": SIDE,
                    "coco_url": f"http://x/{name}",
                    "neg_category_ids": [c for c in (1, 2, 5) if c not in shown],
                    "not_exhaustive_category_ids": [],
                }
            )
            for category in shown:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number + 1,
                        "category_id": category,
                        "bbox": [4.0, 4.0, 20.0, 20.0],
                        "area": 400.0,
                        "segmentation": [],
                    }
                )
        content = {"images": images, "annotations": annotations, "categories": tiny.categories()}
        path = root / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    tiny.write_image_level(root, 7)
    return root


def test_folds(data, tmp_path):
    folders = make_folds(data, 3, tmp_path)
    images = json.loads((tmp_path / "folds.json").read_text())["images"]
    assert len(images) == 30
    by_group = {}
    for image in images:
        by_group.setdefault(image["group"], set()).add(image["fold"])
    assert all(len(folds) == 1 for folds in by_group.values())
    place = {Path(image["file"]).relative_to(data / "lvis_v1").as_posix(): image for image in images}
    trio = [f"train2017/{0:012d}.png", f"train2017/{1:012d}.png", f"val2017/{20:012d}.png"]
    assert len({place[name]["group"] for name in trio}) == 1
    # The only pair with blue is never for validation, and nothing else is left out.
    blue = [place[f"train2017/{number:012d}.png"]["fold"] for number in (8, 9)]
    assert blue == [0, 0] and [image["fold"] for image in images].count(0) == 2
    validated = []
    for fold, folder in folders.items():
        parts = build_datasets(Config(batch_size=2), RunSettings(str(folder), allow_outside=True))
        train, val = parts.train_loader.dataset.datasets[0].annotations, parts.val_annotations
        assert len(train) + len(val) == 30 and 8 <= len(val) <= 10
        validated += [val.file_names[i] for i in range(len(val))]
        for table in (train, val):
            present = {table.categories[k].name for k in table.category_index}
            assert {"red_square", "green_square"} <= present
        # Read from where they lie, and of the size that is stated.
        assert parts.train_loader.dataset.datasets[0].images.read(train.file_names[0], (SIDE, SIDE)).any()
        assert [c.frequency for c in train.categories] == ["f", "c", "r"]
        assert train.categories[2].image_count == 2 and train.categories[0].image_count == len(train)
        assert fold in (1, 2, 3)
    assert len(validated) == len(set(validated)) == 28


def test_folds_are_made_once_and_anew_for_other_annotations(data, tmp_path):
    folders = make_folds(data, 2, tmp_path)
    path = folders[1] / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    path.write_text("kept")
    assert make_folds(data, 2, tmp_path) == folders and path.read_text() == "kept"
    make_folds(data, 3, tmp_path)
    assert path.read_text() != "kept"


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", "gone"])
def test_damaged_folds_are_made_again(data, tmp_path, damage):
    folders = make_folds(data, 2, tmp_path)
    path = folders[1] / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    whole = path.read_text()
    if damage == "gone":
        shutil.rmtree(folders[1])
    else:
        path.write_text("damaged")
        (tmp_path / "folds.json").write_text(damage)
    assert make_folds(data, 2, tmp_path) == folders and path.read_text() == whole


def odd_ids(content: dict) -> None:
    for image in content["images"]:
        image["id"] = str(image["id"])


def an_image_that_is_not_listed(content: dict) -> None:
    content["annotations"].append({**content["annotations"][0], "id": 10**6, "image_id": 10**6})


@pytest.mark.parametrize("odd", [odd_ids, an_image_that_is_not_listed])
def test_folds_take_what_training_takes(data, tmp_path, odd):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    path = copy / "lvis_v1" / "annotations" / "lvis_v1_train.json"
    content = json.loads(path.read_text())
    odd(content)
    path.write_text(json.dumps(content))
    sides = [make_folds(folder, 2, tmp_path / folder.name)[1] for folder in (data, copy)]
    one, other = (read_annotations(s / "lvis_v1" / "annotations" / "lvis_v1_train.json") for s in sides)
    assert len(one) == len(other) and np.array_equal(one.boxes_xywh, other.boxes_xywh)


def test_folds_name_a_file_that_is_cut_off(data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    path = copy / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(UserError, match=r"lvis_v1_val\.json"):
        make_folds(copy, 2, tmp_path / "out")


def test_more_folds_than_groups_are_refused(data, tmp_path):
    with pytest.raises(
        UserError, match="folds=20: the data has 14 groups of images that may be validated on"
    ):
        make_folds(data, 20, tmp_path)


def test_folds_need_json(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        write(tmp_path / "images" / split, {"a.png": scene(0)})
        (tmp_path / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    with pytest.raises(UserError, match="folds need JSON in the form of LVIS or COCO"):
        make_folds(tmp_path, 2, tmp_path / "out")
