"""The groups of classes, and where the counts come from."""

from dataclasses import replace

import pytest

from datasets.annotations.categories import Category, ClassTable
from datasets.annotations.frequency import as_in_training, group_of, recounted, with_frequencies
from tests.datasets import tiny


@pytest.mark.parametrize(
    ("said", "images", "group"),
    [
        *(("", 0, "r"), ("", 10, "r"), ("", 11, "c"), ("", 100, "c"), ("", 101, "f")),
        *(("f", 3, "f"), ("r", 5000, "r"), ("c", None, "c"), ("", None, "")),
    ],
)
def test_what_a_file_says_goes_before_lvis_cuts(said, images, group):
    assert group_of(said, images) == group


def test_only_the_classes_without_a_group_get_one():
    given = [Category(1, "a", frequency="f", image_count=3), Category(2, "b", image_count=30)]
    assert [c.frequency for c in with_frequencies(given)] == ["f", "c"]


def test_evaluated_classes_take_counts_and_missing_groups_by_name():
    classes = ClassTable(("b", "", "a", "c"), (2, -1, 1, 3), (40, 0, 7, 500), ("c", "", "r", "f"))
    evaluated = [
        Category(10, "a", image_count=2),
        Category(20, "b", image_count=1, frequency="r"),
        Category(30, "d", image_count=9),
    ]
    found = as_in_training(evaluated, classes)
    assert [(c.id, c.frequency, c.image_count) for c in found] == [(10, "r", 7), (20, "r", 40), (30, "", 9)]


def test_counts_are_of_the_images_at_hand():
    table = tiny.table_of(tiny.detection_content(9, "train")[0], "train.json")
    half = table.select(table.image_ids > 4)
    stated = replace(half, categories=tuple(replace(c, image_count=77) for c in half.categories))
    assert [c.image_count for c in recounted(stated).categories] == [5, 2, 1]
