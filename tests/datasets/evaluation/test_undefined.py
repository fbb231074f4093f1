"""Validation data in which no box can be found are said before anybody waits for their metrics."""

import pytest

from datasets.evaluation.evaluator import name_undefined
from tests.datasets import tiny


def without_boxes(content):
    content["annotations"] = []


def all_ignored(content):
    for row in content["annotations"]:
        row["ignore"] = 1


def all_crowds(content):
    for image in content["images"]:
        del image["neg_category_ids"]
    for row in content["annotations"]:
        row["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_boxes, "val.json: it has no boxes, so AP and all other metrics will be undefined (-)"),
        (all_ignored, "val.json: its 7 boxes are all crowds, ignored or without size, so AP"),
        (all_crowds, "val.json: its 7 boxes are all crowds, ignored or without size, so AP"),
        (lambda content: None, ""),
        (
            lambda content: content.update(annotations=content["annotations"][:1]),
            "val.json: 2 of 3 classes have no box that counts, so no AP: 'green_square', 'blue_square'\n",
        ),
    ],
)
def test_undefined_metrics_are_said_beforehand(caplog, change, message):
    caplog.set_level("INFO")
    content = tiny.detection_content(4, "val")[0]
    change(content)
    name_undefined(tiny.table_of(content, "val.json"))
    assert message in caplog.text and bool(caplog.text) == bool(message)
