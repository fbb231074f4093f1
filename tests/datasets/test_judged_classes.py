"""The columns that are judged in an image, from what each kind of annotation file says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from config.schema import Config
from datasets.annotations.categories import ClassTable
from datasets.build import RunSettings, build_datasets
from datasets.judged_classes import JudgedColumns
from tests.datasets import tiny
from tests.datasets.test_build import CONFIG

BLUE, GREEN, RED, NO_CLASS = range(4)


def judged_of(content: dict, **arguments) -> list[list[int]]:
    """The columns of each image; one of the model's columns has no class."""
    table = tiny.table_of(content, "a.json")
    classes = ClassTable.from_categories(table.categories, [*sorted(c.name for c in table.categories), ""])
    columns = JudgedColumns(table, classes, **arguments)
    return [columns.of(i).nonzero().flatten().tolist() for i in range(len(table))]


def content(**second) -> dict:
    """Four images that show red; red, green; red; red, green, blue. second: added to the second image."""
    made, _ = tiny.detection_content(4, "train")
    for image in made["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    made["images"][1].update(second)
    return made


def test_of_exhaustive_data_all_classes_are_judged_but_for_crowds():
    made = content()
    assert judged_of(made) == [[BLUE, GREEN, RED]] * 4
    made["annotations"][0]["iscrowd"] = 1
    assert judged_of(made) == [[BLUE, GREEN], *[[BLUE, GREEN, RED]] * 3]


def test_of_lvis_verified_absent_and_present_ones_are_unless_not_exhaustive():
    made = content(neg_category_ids=[5], not_exhaustive_category_ids=[2])
    assert judged_of(made) == [[RED], [BLUE, RED], [RED], [BLUE, GREEN, RED]]


def test_labelled_classes_are_judged_and_present_ones_with_them():
    made = content(labelled_category_ids=[5])
    assert judged_of(made) == [[RED], [BLUE, GREEN, RED], [RED], [BLUE, GREEN, RED]]
    made["labelled_category_ids"] = [2]
    assert judged_of(made) == [[GREEN, RED], [BLUE, GREEN, RED], [GREEN, RED], [BLUE, GREEN, RED]]


def test_withheld_columns_are_judged_nowhere():
    withheld = np.array([False, True, False, False])
    assert judged_of(content(), withheld=withheld) == [[BLUE, RED]] * 4


@pytest.mark.parametrize(
    ("key", "labelled", "on"),
    [("auto", False, False), ("auto", True, True), (True, False, True), (False, True, False)],
)
def test_the_key_decides_and_auto_asks_the_data(tmp_path, key, labelled, on):
    folder = tiny.write_all(tmp_path)
    (path,) = folder.rglob("lvis_v1_train.json")
    made = json.loads(path.read_text())
    if labelled:
        path.write_text(json.dumps({"labelled_category_ids": [1, 2], **made}))
    parts = build_datasets(replace(CONFIG, judged_classes=key), RunSettings(str(folder)))
    for _, targets in parts.train_loader:
        assert (targets.judged is not None) == (on and not targets.image_level)
        if targets.judged is not None:
            assert targets.judged.shape == (len(targets), 3)
            assert targets.judged[targets.image_index, targets.labels].all()
    assert all(targets.judged is None for _, targets in parts.val_loader)


def test_the_open_vocabulary_split_teaches_nothing_of_rare_classes(tmp_path):
    folder = tiny.write_all(tmp_path)
    config = replace(CONFIG, judged_classes=True)
    parts = build_datasets(config, RunSettings(str(folder), "lvis_openvocab"))
    rare = list(parts.classes.frequencies).index("r")
    masks = [t.judged for _, t in parts.train_loader if t.judged is not None]
    assert masks and not any(mask[:, rare].any() for mask in masks)


def test_the_key_takes_true_false_and_auto():
    assert Config.from_dict({"judged_classes": True}).judged_classes is True
    with pytest.raises(Exception, match="judged_classes' = 'maybe': choose one of 'auto', True, False"):
        Config.from_dict({"judged_classes": "maybe"})
    with pytest.raises(Exception, match="judged_classes' = 1: expected bool or str"):
        Config.from_dict({"judged_classes": 1})
