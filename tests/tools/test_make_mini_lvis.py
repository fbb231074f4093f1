"""The drawn dataset: LVIS v1's and Detic's formats, an honest tail, labels that say only what is true."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lvis import LVIS
from PIL import Image
from pycocotools import mask as mask_utils

from datasets.annotations.frequency import frequency_of
from tools.make_mini_lvis import main
from tools.mini_lvis import boxed, plan
from tools.mini_lvis.classes import MINI, TAIL
from tools.mini_lvis.dataset import TAIL_SETTINGS
from tools.mini_lvis.image_level import image_level_jobs
from tools.mini_lvis.outline import outlines
from tools.mini_lvis.scene import MIN_VISIBLE, Thing, compose
from tools.mini_lvis.vocabulary import RARE_SHAPES, Kind
from util.errors import UserError

SMALL = ["--train", "60", "--val", "20", "--image_level", "2", "--workers", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    main(["--output", str(folder), *SMALL])
    return folder


def annotations(root: Path, split: str) -> dict:
    return json.loads((root / f"lvis_v1/annotations/lvis_v1_{split}.json").read_text())


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def dealt_kinds(split: str, vocabulary=MINI) -> list[list]:
    images = 1200 if split == "train" else 300
    counts = (plan.train_counts if split == "train" else plan.val_counts)(vocabulary, images)
    return plan.deal(np.random.default_rng(3), images, counts)


def test_same_seed_same_bytes_also_with_two_processes(root, tmp_path):
    main(["--output", str(tmp_path / "again"), *SMALL[:-1], "2"])
    assert digest(tmp_path / "again") == digest(root)


def test_the_tail_has_ten_image_level_images_for_every_one_with_boxes(tmp_path):
    """Of the whole set's plan, and a small one drawn."""
    settings = TAIL_SETTINGS
    jobs = image_level_jobs(tmp_path, settings.vocabulary, settings.image_level, (0, 4))
    assert len(jobs) == pytest.approx(10 * settings.train, rel=0.03)
    main(["--tail", "--output", str(tmp_path / "tail"), *SMALL[:1], "8", "--val", "3", *SMALL[4:]])
    categories = annotations(tmp_path / "tail", "train")["categories"]
    assert [c["name"] for c in categories] == sorted(c.name for c in TAIL.classes) and len(categories) == 64
    images = json.loads((tmp_path / "tail/imagenet-lvis/imagenet_lvis_image_info.json").read_text())["images"]
    assert {i["pos_category_ids"][0] for i in images} == set(range(1, 65))


def test_another_seed_draws_other_images(root, tmp_path):
    main(["--output", str(tmp_path), "--seed", "1", *SMALL])
    same = set(digest(tmp_path).values()) & set(digest(root).values())
    assert not same


@pytest.mark.parametrize("split", ["train", "val"])
def test_lvis_reads_it(root, split):
    lvis = LVIS(str(root / f"lvis_v1/annotations/lvis_v1_{split}.json"))
    assert len(lvis.imgs) == (60 if split == "train" else 20)
    assert sorted(lvis.cats) == list(range(1, 41))
    for annotation in lvis.dataset["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert x >= 0 and y >= 0 and width >= 1 and height >= 1 and x + width <= 160 and y + height <= 160
        rle = lvis.ann_to_rle(annotation)
        # The polygon leaves holes out, so it may hold more than the mask, never less.
        assert mask_utils.area(rle) >= annotation["area"]
        assert mask_utils.toBbox(rle).tolist() == annotation["bbox"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_keys_are_lvis_v1s(root, split):
    content = annotations(root, split)
    assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
    assert set(content["annotations"][0]) == {"id", "image_id", "category_id", "bbox", "area", "segmentation"}
    assert set(content["categories"][0]) == {
        *("id", "name", "synset", "synonyms", "def", "frequency", "image_count", "instance_count")
    }
    assert {"id", "width", "height", "coco_url", "neg_category_ids", "not_exhaustive_category_ids"} < set(
        content["images"][0]
    )
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    assert all(type(v) is float for a in content["annotations"] for v in a["bbox"])


def test_images_lie_where_the_url_says(root):
    for split in ("train", "val"):
        folders = Counter()
        for image in annotations(root, split)["images"]:
            folder, name = image["coco_url"].split("/")[-2:]
            with Image.open(root / "lvis_v1" / folder / name) as opened:
                assert opened.size == (image["width"], image["height"])
            folders[folder] += 1
        expected = {"train2017": 60} if split == "train" else {"val2017": 16, "train2017": 4}
        assert folders == expected


def test_counts_and_frequencies_are_those_of_the_training_images(root):
    train, val = annotations(root, "train"), annotations(root, "val")
    assert train["categories"] == val["categories"]
    images = Counter(c for _, c in {(a["image_id"], a["category_id"]) for a in train["annotations"]})
    instances = Counter(a["category_id"] for a in train["annotations"])
    for c in train["categories"]:
        assert (c["image_count"], c["instance_count"]) == (images[c["id"]], instances[c["id"]])
        assert c["frequency"] == frequency_of(images[c["id"]])
    assert [frequency_of(n) for n in (1, 10, 11, 100, 101)] == ["r", "r", "c", "c", "f"]


@pytest.mark.parametrize(
    ("vocabulary", "groups"), [(MINI, {"r": 10, "c": 15, "f": 15}), (TAIL, {"r": 20, "c": 24, "f": 20})]
)
def test_the_full_plan_has_lvis_groups_and_enough_to_validate_on(vocabulary, groups):
    train, val = dealt_kinds("train", vocabulary), dealt_kinds("val", vocabulary)
    assert all(len(set(classes)) == len(classes) for classes in train + val)
    images = Counter(c for classes in train for c in classes)
    assert Counter(frequency_of(images[c]) for c in vocabulary.classes) == groups
    # What occlusion and leaving things out take away must not move a class over a cut-off.
    assert min(n for n in images.values() if n > 100) >= 115
    assert min(n for n in images.values() if n > 10) >= 14
    seen = Counter(c for classes in val for c in classes)
    assert min(seen[c] for c in vocabulary.classes if frequency_of(images[c]) == "r") >= 20
    assert min(seen.values()) >= 18


@pytest.mark.parametrize(("vocabulary", "count"), [(MINI, 4), (TAIL, 8)])
def test_parts_are_spread_over_the_frequency_groups(vocabulary, count):
    by_group = {g: [c.kind for c in vocabulary.classes if frequency_of(c.train_images) == g] for g in "rcf"}
    for part in ("shape", "pattern", "colour"):
        often, common = (Counter(getattr(k, part) for k in by_group[g]) for g in "fc")
        assert set(often) == set(common)
        assert max(often.values()) - min(often.values()) <= 1
        assert max(common.values()) - min(common.values()) <= 1
    elsewhere = [c.kind for c in vocabulary.classes if c.kind.shape not in RARE_SHAPES]
    unique = [c for c in vocabulary.classes if c.kind.shape in RARE_SHAPES]
    assert len(unique) == count
    for c in unique:
        assert frequency_of(c.train_images) == "r"
        for part in ("shape", "pattern", "colour"):
            assert getattr(c.kind, part) not in {getattr(k, part) for k in elsewhere}


def labelled_scenes(count: int):
    """What is drawn and what is said of it, for scenes as the dataset has them."""
    for i, classes in enumerate(dealt_kinds("train")[:count]):
        rng = np.random.default_rng([9, i])
        wanted = boxed.things_to_place(rng, classes, 160)
        _, visible = compose(rng, 160, 160, wanted, 4, 2)
        yield visible, boxed.label(rng, MINI, visible)


def test_labels_say_only_what_is_true():
    incomplete = unlabelled = 0
    for visible, labels in labelled_scenes(80):
        ids = {c.kind: c.id for c in MINI.classes}
        seen = {ids[v.kind] for v in visible}
        clear = Counter(ids[v.kind] for v in visible if v.share >= MIN_VISIBLE)
        labelled = Counter(ids[v.kind] for v in labels.labelled)
        assert labels.negative and not seen & set(labels.negative)
        assert all(v.share >= MIN_VISIBLE for v in labels.labelled)
        for class_id in labels.not_exhaustive:
            assert 0 < labelled[class_id] < clear[class_id]
            incomplete += 1
        for class_id in set(labelled) - set(labels.not_exhaustive):
            assert labelled[class_id] == clear[class_id]
        for class_id in set(clear) - set(labelled):
            assert frequency_of(next(c.train_images for c in MINI.classes if c.id == class_id)) != "r"
            assert class_id not in labels.negative
            unlabelled += 1
    assert incomplete > 0 and unlabelled > 0


def test_a_hidden_thing_is_cut_to_what_can_be_seen():
    kind = Kind("plain", "red", "square")
    wanted = [Thing(kind, 60, (80, 80)), Thing(kind, 24, (80, 80))]
    _, visible = compose(np.random.default_rng(0), 160, 160, wanted, 0, 0)
    assert not (visible[0].mask & visible[1].mask).any()
    # The small one covers about (24 / 60)^2 of the large one.
    assert 0.6 < visible[0].share < 0.9
    assert visible[1].share > 0.5


def test_box_is_the_mask_and_no_wider():
    mask = np.zeros((40, 50), dtype=bool)
    mask[10:20, 30:45] = True
    mask[20, 33] = True
    entry = boxed.annotation(boxed.Visible(MINI.classes[0].kind, mask, 1.0), 4, 7)
    assert entry["bbox"] == [30.0, 10.0, 15.0, 11.0]
    assert entry["area"] == 151.0 and (entry["image_id"], entry["category_id"]) == (7, 4)


def test_outlines_rebuild_the_mask_they_were_drawn_around():
    rng = np.random.default_rng(0)
    mask = rng.random((24, 31)) < 0.45
    rles = [mask_utils.frPyObjects([p], 24, 31)[0] for p in outlines(mask)]
    drawn = mask_utils.decode(mask_utils.merge(rles)).astype(bool)
    # Every pixel is there; what is there beside them is holes.
    assert (drawn | mask == drawn).all()
    holed = np.zeros((9, 9), dtype=bool)
    holed[1:8, 1:8] = True
    holed[3:6, 3:6] = False
    assert outlines(holed) == [[1.0, 1.0, 8.0, 1.0, 8.0, 8.0, 1.0, 8.0]]


def test_image_level_tree_is_detics(root):
    content = json.loads((root / "imagenet-lvis/imagenet_lvis_image_info.json").read_text())
    assert set(content) == {"categories", "images", "annotations"} and content["annotations"] == []
    assert [i["id"] for i in content["images"]] == list(range(1, len(content["images"]) + 1))
    per_class = Counter()
    for image in content["images"]:
        assert set(image) == {"id", "file_name", "pos_category_ids", "width", "height"}
        with Image.open(root / "imagenet-lvis/images" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
        (class_id,) = image["pos_category_ids"]
        assert image["file_name"].split("/")[0] == MINI.classes[class_id - 1].wnid
        per_class[class_id] += 1
    assert {c["id"]: c["image_count"] for c in content["categories"]} == per_class
    assert len(per_class) == 40
    boxed_categories = annotations(root, "train")["categories"]
    for a, b in zip(content["categories"], boxed_categories, strict=True):
        assert {**a, "image_count": 0} == {**b, "image_count": 0}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--train", "0"], "--train"), (["--side", "8"], "--side"), (["--seed", "-1"], "--seed")],
)
def test_bad_arguments_name_themselves(tmp_path, arguments, word):
    with pytest.raises(UserError, match=word):
        main(["--output", str(tmp_path / "new"), *arguments])


def test_an_interrupted_drawing_leaves_no_dataset_and_can_be_repeated(tmp_path, monkeypatch):
    output = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr("tools.make_mini_lvis.write_dataset", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(["--output", str(output), "--workers", "1"])
    assert not output.exists()
    main(["--output", str(output), "--train", "2", "--val", "1", "--image_level", "1", "--workers", "1"])
    assert {p.name for p in output.iterdir()} == {"lvis_v1", "imagenet-lvis"}
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def _interrupted(root, settings, parallel_map):
    (root / "lvis_v1").mkdir(parents=True)
    raise KeyboardInterrupt


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        main(["--output", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
