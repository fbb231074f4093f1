import logging
import re

import pytest
import torch

from datasets.annotations.categories import ClassTable
from datasets.evaluation.class_table import class_table
from datasets.evaluation.evaluator import BoxEvaluator
from datasets.evaluation.result import ClassResult
from tests.datasets import tiny
from util.structures import Detections


def result(name: str, ap: float | None, frequency: str = "") -> ClassResult:
    return ClassResult(name, frequency, 7, 3, 5, ap, ap, ap)


def names(text: str) -> list[str]:
    return [line.split("  ")[-1].strip() for line in text.splitlines()[1:]]


def test_the_worst_of_each_group_comes_first():
    classes = [result(n, ap) for n, ap in (("oat", 0.5), ("pea", 0.25), ("fig", 0.9), ("yam", 0.1))]
    text = class_table(classes, [3, 10, 11, 1000])
    assert names(text) == [
        *("= mean of the rare classes (2)", "pea", "oat", "= mean of the common classes (1)", "fig"),
        *("= mean of the frequent classes (1)", "yam"),
    ]
    lines = text.splitlines()
    assert float(lines[1].split()[0]) == 37.5
    assert lines[2].split() == ["25.00", "25.00", "25.00", "10", "3", "5", "pea"]
    assert len({len(line.rpartition("  ")[0]) for line in lines if "mean" not in line}) == 1, "aligned"


def test_the_annotations_group_wins_and_classes_without_boxes_are_counted():
    text = class_table([result("oat", 0.0, "f"), result("fig", None, "r")], [2, 2])
    assert names(text)[:2] == ["= mean of the frequent classes (1)", "oat"]
    assert text.splitlines()[-1] == "no box in the validation set, so no AP: fig"


@pytest.mark.parametrize("per_class", [True, False])
def test_the_evaluator_logs_it_with_the_counts_of_training(tmp_path, caplog, per_class):
    table = tiny.table_of(tiny.detection_content(4, "val")[0], "val.json")
    # The model's columns are in another order than the annotations' categories.
    columns = ClassTable(
        ("blue_square", "green_square", "red_square"), (5, 2, 1), (1, 20, 300), ("r", "c", "f")
    )
    evaluator = BoxEvaluator(table, columns, tmp_path, per_class=per_class)
    box = torch.tensor([[10.0, 8.0, 30.0, 24.0]])
    evaluator.update([1], [Detections(torch.tensor([0.9]), torch.tensor([2]), box)])
    with caplog.at_level(logging.INFO, logger="richsem"):
        evaluator.finish()
    found = [
        re.search(rf"^.* {count} .* {name}$", caplog.text, re.M)
        for name, count in (("blue_square", 1), ("green_square", 20), ("red_square", 300))
    ]
    assert all(found) if per_class else not any(found)
