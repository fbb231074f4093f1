"""Several paths as one data set, and class lists by config, through the one door of the data side."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest

from datasets.build import RunSettings, build_datasets
from datasets.opening import DataRequest, open_detection_data, open_labelled_images, set_names
from tests.datasets import tiny
from tests.datasets.sets import coco, write_coco, write_yolo
from tests.datasets.test_build import CONFIG
from util.errors import UserError

PETS = ["cat", "dog"]
STREET = [{"id": 4, "name": "hound", "synonyms": ["dog"]}, {"id": 7, "name": "car"}]
ALONE = replace(CONFIG, use_imagenet=False, use_rfs=False, batch_size=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A YOLO and a COCO set: dog and hound are one class."""
    root = tmp_path_factory.mktemp("sets")
    for split, count in (("train", 3), ("val", 2)):
        write_yolo(root / "pets", split, PETS, [["cat"], ["dog", "cat"], []][:count])
        write_coco(root / "street", split, coco(STREET, [["car", "hound"], ["hound"], ["car"]][:count]))
    return root


def paths(root, *names):
    return tuple(str(root / name) for name in names)


def labels_shown(parts, epoch=0):
    parts.train_loader.set_epoch(epoch)
    targets = [t for _, targets in parts.train_loader for t in targets]
    return {t.files[0]: sorted(parts.classes.names[i] for i in t.labels.tolist()) for t in targets}


def test_two_sets_train_and_validate_as_one(two):
    parts = build_datasets(ALONE, RunSettings(paths(two, "pets", "street")))
    assert parts.classes.names == ("cat", "dog", "car") and parts.classes.image_counts == (2, 3, 2)
    shown = labels_shown(parts)
    assert set(shown) == {f"pets/images/train/{n}.png" for n in (1, 2, 3)} | {
        f"street/{n}.png" for n in (1, 2, 3)
    }
    assert shown["street/2.png"] in ([], ["dog"])
    assert [part.name for part in parts.val_parts] == ["pets", "street"] and len(
        parts.val_loader.dataset
    ) == 4
    assert parts.sets["street"] == {"hound": "dog", "car": "car"}
    assert "hound (id 4, by synonym)" in parts.union_table
    assert parts.val_annotations.federated


def test_classes_that_were_not_labelled_in_a_set_are_not_judged_there(two):
    labelled = {"pets": ["dog"]}
    config = replace(ALONE, labelled_classes=labelled)
    parts = build_datasets(config, RunSettings(paths(two, "pets", "street")))
    cat, dog, car = (parts.classes.names.index(name) for name in ("cat", "dog", "car"))
    judged = {t.files[0]: judged.nonzero().flatten().tolist() for t, judged in _judged(parts)}
    # Shown classes are judged in any case: the first image shows a cat.
    assert judged["pets/images/train/1.png"] == judged["pets/images/train/2.png"] == [cat, dog]
    assert judged["pets/images/train/3.png"] == [dog]
    assert judged["street/1.png"] == sorted([dog, car])
    alone = build_datasets(config, RunSettings(paths(two, "pets")))
    assert tiny.judged_lists(alone.val_annotations) == [[1], [1]]
    for wrong, message in (
        ({"pests": ["dog"]}, "there is no data set 'pests', but pets, street. Did you mean 'pets'?"),
        ({"pets": ["dogs"]}, "'pets' has no class 'dogs'. Did you mean 'dog'?"),
    ):
        with pytest.raises(UserError, match=re.escape(f"labelled_classes: {message}")):
            build_datasets(replace(ALONE, labelled_classes=wrong), RunSettings(paths(two, "pets", "street")))


def _judged(parts):
    for _, targets in parts.train_loader:
        yield from zip(targets, targets.judged, strict=True)


def test_evaluation_has_the_classes_of_training(two):
    """The validation data alone would name the class after the first set that has it."""
    trained = build_datasets(ALONE, RunSettings(paths(two, "pets", "street")))
    found = build_datasets(ALONE, RunSettings(paths(two, "street"), sets=trained.sets), train=False)
    assert [c.name for c in found.val_annotations.categories] == ["hound", "car"]
    found = build_datasets(ALONE, RunSettings(paths(two, "street", "pets"), sets=trained.sets), train=False)
    assert {c.name for c in found.val_annotations.categories} == {"cat", "dog", "car"}


def test_a_set_without_validation_images_is_said(two, tmp_path, caplog):
    write_coco(tmp_path / "more", "train", coco(["cat"], [["cat"]]))
    with caplog.at_level(logging.WARNING):
        parts = build_datasets(ALONE, RunSettings((str(tmp_path / "more"), *paths(two, "pets"))))
    assert "more has no validation split: the others are evaluated" in caplog.text
    assert [part.name for part in parts.val_parts] == ["pets"]
    (tmp_path / "again").mkdir()
    (tmp_path / "more").rename(tmp_path / "again" / "more")
    write_coco(tmp_path / "more", "train", coco(["cat"], [["cat"]]))
    with pytest.raises(UserError, match="has a validation split"):
        build_datasets(ALONE, RunSettings(paths(tmp_path, "more", "again/more")))


def test_a_set_without_training_images_is_an_error(two, tmp_path):
    write_coco(tmp_path / "late", "val", coco(["cat"], [["cat"]]))
    with pytest.raises(UserError, match=r"late: .*train"):
        build_datasets(ALONE, RunSettings((*paths(two, "pets"), str(tmp_path / "late"))))


def test_a_class_of_a_sets_validation_images_is_one_of_its_training_images(two, tmp_path):
    write_coco(tmp_path / "odd", "train", coco(["cat"], [["cat"]]))
    write_coco(tmp_path / "odd", "val", coco(["cat", "cow"], [["cat"]]))
    with pytest.raises(UserError, match=r"class 'cow' of odd: val.json is not in odd: train.json"):
        build_datasets(ALONE, RunSettings((*paths(two, "pets"), str(tmp_path / "odd"))))


def test_names_of_sets_tell_them_apart(tmp_path):
    for name in ("a/data", "b/data", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "c" / "data.yaml").touch()
    found = set_names([str(tmp_path / name) for name in ("a/data", "b/data", "c/data.yaml")])
    assert found == ["a-data", "b-data", "c"]
    (tmp_path / "c" / "more.json").touch()
    assert set_names([str(tmp_path / name) for name in ("c/data.yaml", "c/more.json")]) == ["data", "more"]
    with pytest.raises(UserError, match="twice"):
        set_names([str(tmp_path / "c"), str(tmp_path / "a" / ".." / "c")])


def test_weights_say_how_often_images_of_a_set_are_seen(two):
    run = RunSettings(paths(two, "pets", "street"))
    for config in (ALONE, replace(ALONE, use_rfs=True, rfs_repeat_sh=0.0)):
        loader = build_datasets(replace(config, set_weights=(0.5, 2)), run).train_loader
        counts = np.zeros(2)
        for epoch in range(4):
            loader.set_epoch(epoch)
            files = [t.files[0] for _, targets in loader for t in targets]
            counts += [sum(f.startswith(f"{name}/") for f in files) for name in ("pets", "street")]
            assert len(files) == 7  # 3 x 0.5, rounded down, and 3 x 2
        assert abs(counts[0] - 4 * 1.5) <= 2 and abs(counts[1] - 4 * 6) <= 2
    message = r"set_weights=\[1.0\] has 1 weights for 2 data sets \(pets, street\)"
    with pytest.raises(UserError, match=message):
        build_datasets(replace(ALONE, set_weights=(1.0,)), run)


def test_class_lists_hold_for_training_validation_and_image_level_data(two, tmp_path, caplog):
    for name in ("cat", "hound", "car"):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        tiny.draw(tmp_path / "labelled" / name / "1.png", (40, 50), [])
    config = replace(
        ALONE,
        use_imagenet=True,
        imagenet_path=str(tmp_path / "labelled"),
        imagenet_use_mosaic=False,
        merge={"animal": ("cat", "dog")},
        rename={"animal": "pet"},
        classes=("pet",),
    )
    with caplog.at_level(logging.WARNING):
        parts = build_datasets(config, RunSettings(paths(two, "pets", "street")))
    assert parts.classes.names == ("pet",)
    shown = labels_shown(parts)
    # cat is a part of pet, and so is dog, which is a synonym of hound; car is left out, without a word.
    labelled = {name: shown[name] for name in shown if name.split("/")[0] in ("cat", "hound", "car")}
    assert labelled == {"cat/1.png": ["pet"], "hound/1.png": ["pet"]}
    assert "match no detection class" not in caplog.text
    assert [c.name for c in parts.val_annotations.categories] == ["pet"]
    assert parts.record.edits.classes == ("pet",)


def test_a_merge_joins_classes_of_two_sets_that_nothing_connects(two):
    config = replace(ALONE, merge={"mover": ("cat", "car")})
    parts = build_datasets(config, RunSettings(paths(two, "pets", "street")))
    assert parts.classes.names == ("mover", "dog") and parts.classes.image_counts == (4, 3)
    assert parts.sets["street"] == {"hound": "dog", "mover": "mover"}


def test_unknown_names_are_errors_in_training_and_evaluation(two):
    run = RunSettings(paths(two, "pets", "street"))
    with pytest.raises(UserError, match=r"classes: the data has no class 'catt'. Did you mean 'cat'"):
        build_datasets(replace(ALONE, classes=("catt",)), run)
    with pytest.raises(UserError, match="rename: the data has no class 'cart'"):
        build_datasets(replace(ALONE, rename={"cart": "x"}), run, train=False, trained=("cat",))


def test_image_level_data_of_one_of_the_sets(two, tmp_path):
    tiny.write_image_level(tmp_path / "one", 3)
    where = [*paths(two, "pets"), str(tmp_path / "one")]
    assert len(open_labelled_images(where)[0]) == 3
    tiny.write_image_level(tmp_path / "two", 3)
    with pytest.raises(UserError, match=r"image-level data in .*one.* and .*two.*: set imagenet_path"):
        open_labelled_images([*where, str(tmp_path / "two")])
    folder = str(tmp_path / "two" / "imagenet-lvis")
    assert len(open_labelled_images([*where, str(tmp_path / "two")], folder)[0]) == 3


def test_openvocab_takes_one_set(two):
    with pytest.raises(UserError, match="takes one --data_path"):
        build_datasets(ALONE, RunSettings(paths(two, "pets", "street"), dataset_file="lvis_openvocab"))


def test_one_path_in_a_list_is_that_path(two):
    alone = open_detection_data(DataRequest(paths(two, "street")))
    assert alone.union is None and alone.train.table.file_names[0] == "1.png"
    assert alone.val.table.image_ids.tolist() == [1, 2] and not alone.val.parts
