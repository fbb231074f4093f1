"""What boxes say against their images and one another."""

import numpy as np
import pytest

from datasets.annotations.categories import Category
from datasets.annotations.source import RawAnnotations
from tools.data_doctor.boxes import check_boxes

SIZES = np.array([[48, 64], [300, 200], [480, 640], [1000, 800]])


def raw(boxes, sizes=SIZES, **changes):
    """Boxes in turn on the images, of classes 1 and 2 in turn."""
    boxes = np.array(boxes, float).reshape(-1, 4)
    number, images = len(boxes), len(sizes)
    columns = {
        "categories": [Category(1, "cat"), Category(2, "dog")],
        "image_ids": np.arange(images) * 10,
        "file_names": [f"{i}.jpg" for i in range(images)],
        "sizes": np.array(sizes),
        "annotation_ids": np.arange(1, number + 1),
        "box_image_ids": np.arange(number) % images * 10,
        "box_category_ids": np.arange(number) % 2 + 1,
        "boxes_xywh": boxes,
    }
    return RawAnnotations(**columns | changes)


def found(annotations, sizes=None):
    """(severity, what, examples) of all findings."""
    sizes = annotations.sizes if sizes is None else sizes
    return [(f.severity.name, f.what, f.examples) for f in check_boxes("train", annotations, sizes)]


def shares(number=60, seed=0):
    """(number, 4) boxes as an annotator draws them: fractions x1 y1 x2 y2 of their image."""
    rng = np.random.default_rng(seed)
    first, size = rng.uniform(0, 0.6, (number, 2)), rng.uniform(0.1, 0.4, (number, 2))
    return np.concatenate((first, first + size), 1)


def whole(number=60):
    """(number, 4) width, height, width, height of the boxes' images."""
    return SIZES[np.arange(number) % len(SIZES)][:, [1, 0, 1, 0]]


def xywh(corners):
    return np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), 1)


GOOD = xywh(shares() * whole())


def test_boxes_as_annotators_draw_them_are_not_doubted():
    for seed in range(20):
        assert found(raw(xywh(shares(seed=seed) * whole()))) == []
    assert found(raw([[0, 0, 64, 48]] * 10)) != [], "equal ones are there twice"


def test_corners_in_place_of_a_size():
    ((severity, what, examples),) = found(raw(shares() * whole()))
    assert severity == "ERROR" and "of 60 boxes reach beyond their image; as x1 y1 x2 y2 they all fit" in what
    assert examples[0].startswith("annotation ") and "1000" in examples[0], "the farthest one first"
    # YOLO: the reader took them for centre and size.
    written = shares() * whole()
    read = np.concatenate((written[:, :2] - written[:, 2:] / 2, written[:, 2:]), 1)
    ((severity, what, _),) = found(raw(read))
    assert severity == "ERROR" and "as x1 y1 x2 y2 instead of centre and size they all fit" in what


def test_fractions_of_the_image():
    ((severity, what, examples),) = found(raw(xywh(shares())))
    assert severity == "ERROR" and what == "all 60 boxes lie between 0 and 1" and len(examples) == 60
    tiny_images = raw(xywh(shares()), np.ones((4, 2)))
    assert not any("lie between 0 and 1" in what for _, what, _ in found(tiny_images))


@pytest.mark.parametrize(
    ("box", "severity", "what"),
    [
        ([0, 0, np.nan, 5], "WARNING", "1 boxes contain NaN or infinity"),
        ([9, 9, 5, -1], "WARNING", "1 boxes have no width or height"),
        ([65, 5, 5, 5], "WARNING", "1 boxes lie outside their image"),
        ([64, 5, 5, 5], "WARNING", "1 boxes lie outside their image"),
        ([-9, 5, 5, 5], "WARNING", "1 boxes lie outside their image"),
        ([60, 5, 5.5, 5], "WARNING", "1 boxes reach beyond their image"),
        ([5, -3, 5, 5], "WARNING", "1 boxes reach beyond their image"),
        ([5, 5, 1.5, 20], "NOTE", "1 boxes are less than 2 pixels wide or high"),
    ],
)
def test_single_boxes(box, severity, what):
    ((found_severity, found_what, examples),) = found(raw(np.concatenate(([box], GOOD[1:]))))
    assert (found_severity, found_what) == (severity, what)
    assert examples[0].startswith("annotation 1 of 0.jpg: cat [") and examples[0].endswith("in 64x48")


def test_a_box_that_rounding_moved_is_fine_and_so_is_one_of_an_image_of_unknown_size():
    assert found(raw(np.concatenate(([[60, 40, 5, 9]], GOOD[1:])))) == []
    unknown = raw(GOOD * 50, np.zeros((4, 2)))
    assert found(unknown) == []
    assert any("outside" in what for _, what, _ in found(unknown, SIZES)), "the sizes of the files tell"


def test_the_farthest_box_is_named_first_and_so_is_the_smallest():
    boxes = GOOD.copy()
    boxes[:3] = [[50, 1, 20, 5], [150, 1, 90, 5], [600, 1, 60, 5]]
    ((_, _, examples),) = found(raw(boxes))
    assert [e.split()[1] for e in examples] == ["2", "3", "1"]
    boxes[:3] = [[1, 1, 1.5, 5], [1, 1, 0.5, 5], [1, 1, 1.9, 5]]
    ((_, _, examples),) = found(raw(boxes))
    assert [e.split()[1] for e in examples] == ["2", "1", "3"]


def test_many_tiny_boxes_are_a_warning():
    boxes = GOOD.copy()
    boxes[::5, 2:] = 0.5
    assert [(s, w) for s, w, _ in found(raw(boxes))] == [
        ("WARNING", "12 boxes are less than 2 pixels wide or high")
    ]


def test_whole_images_as_boxes():
    boxes = np.concatenate((np.zeros((60, 2)), whole()[:, :2]), 1) + np.arange(60)[:, None] * 0.01
    annotations = raw(boxes, SIZES)
    assert "a box covers all of its image in 4 of 4 images" in [w for _, w, _ in found(annotations)]


def test_the_same_box_everywhere():
    boxes = np.array([0.25, 0.25, 0.5, 0.5]) * whole() + np.arange(60)[:, None] * 1e-4
    (what,) = [w for _, w, _ in found(raw(boxes))]
    assert what.startswith("60 of 60 boxes are the same: [0.25, 0.25, 0.5, 0.5] of their image's width")


def test_boxes_that_are_there_twice():
    boxes = GOOD.copy()
    boxes[8] = boxes[0]
    ((severity, what, examples),) = found(raw(boxes))
    assert severity == "WARNING" and what == "1 boxes are there twice: same image, class and place"
    assert examples[0].startswith("annotation 9 of 0.jpg")
    assert found(raw(boxes, box_category_ids=np.arange(60) // 8 % 2 + 1)) == [], "of two classes"


def test_a_box_says_where_it_is_written():
    annotations = raw(np.concatenate(([[65, 5, 5, 5]], GOOD[1:])), places=lambda row: f"a.txt line {row + 1}")
    ((_, _, examples),) = found(annotations)
    assert examples[0].startswith("a.txt line 1 of 0.jpg: cat")


def test_no_boxes():
    assert found(raw([])) == [("ERROR", "there are no boxes", ())]
