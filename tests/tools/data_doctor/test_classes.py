"""Classes that are probably one, that only one split has, and how often they occur."""

import numpy as np
import pytest

from datasets.annotations.categories import Category
from datasets.annotations.lvis_v1 import lvis_v1_classes
from tests.tools.data_doctor.test_boxes import GOOD, raw
from tools.data_doctor.classes import check_classes, check_classes_of_both


def classes(*names):
    return [Category(number, name) for number, name in enumerate(names, 1)]


def alike(*names):
    """(severity, examples) of what is said of names."""
    findings = check_classes("train", raw(GOOD, categories=classes(*names)), training=True)
    return [
        (f.severity.name, list(f.examples)) for f in findings if "class" in f.what and " box" not in f.what
    ]


@pytest.mark.parametrize(
    ("names", "severity"),
    [
        (("Traffic Light", "traffic_light"), "WARNING"),
        (("traffic light", "traffic_lights"), "WARNING"),
        (("hot dog", "hotdog"), "WARNING"),
        (("berries", "berry"), "WARNING"),
        (("bus", "buses"), None),
        (("benches", "bench"), "WARNING"),
        (("couch", "sofa"), "WARNING"),
        (("motorcycle", "motorcyle"), "NOTE"),
        (("boat", "goat"), None),
        (("glass", "glas"), None),
        (("defect 1", "defect 2"), None),
        (("dented_can_1", "dented_can_11"), None),
        (("bow_(weapon)", "bow_(decorative_ribbons)"), None),
    ],
)
def test_classes_that_are_probably_one(names, severity):
    said = alike("zebra", *names)
    expected = [] if severity is None else [(severity, [" and ".join(map(repr, sorted(names)))])]
    assert said == expected


def test_the_classes_of_lvis_and_of_coco_are_not_doubted():
    assert alike(*(c.name for c in lvis_v1_classes())) == []
    assert (
        alike("car", "carrot", "cat", "cow", "cup", "bus", "bear", "bed", "tv", "teddy bear", "wine glass")
        == []
    )


def test_a_class_that_training_lacks_comes_with_the_nearest_one():
    train, val = raw(GOOD), raw(GOOD, categories=[Category(1, "cat"), Category(2, "dogs")])
    (finding,) = check_classes_of_both("val", train, val)
    assert finding.severity.name == "ERROR" and list(finding.examples) == ["dogs (nearest: 'dog')"]


def test_the_tail():
    ids = np.repeat([1, 2, 3], [45, 12, 3])
    categories = classes("common one", "other", "rare one", "none")
    annotations = raw(
        GOOD,
        np.tile([[48, 64]], (60, 1)),
        categories=categories,
        box_category_ids=ids,
        box_image_ids=np.arange(60) * 10,
    )
    without, tail = check_classes("train", annotations, training=True)
    assert without.what == "1 classes have no box" and list(without.examples) == ["none"]
    assert tail.what.startswith("classes with boxes: 3 (2 common, 1 rare), in 3 to 45 images each")
    assert list(tail.examples) == ["rare one 3", "other 12", "common one 45"]
