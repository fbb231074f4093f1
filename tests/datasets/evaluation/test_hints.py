"""Predictions files with the mistakes that people make: each is named, and right ones are not doubted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.annotations.categories import Category, ClassTable
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.evaluator import BoxEvaluator, evaluate_boxes
from datasets.evaluation.hints import hints, is_near_zero
from datasets.evaluation.predictions import Predictions
from tests.datasets import tiny
from tests.datasets.evaluation.box_cases import coco_case, lvis_case
from util.structures import Detections

# COCO's ids of its first 80 classes have gaps; so has this list.
IDS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17])


def annotations(images=60, ids=IDS, seed=0):
    """Images of several sizes with one to five boxes each; image ids 100, 103, ..."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(200, 700, (images, 2))
    image_index = np.repeat(np.arange(images), rng.integers(1, 6, images))
    whole = sizes[image_index][:, ::-1]
    corner = rng.uniform(0, 0.6, (len(image_index), 2)) * whole
    boxes = np.concatenate((corner, rng.uniform(0.1, 0.4, corner.shape) * whole), 1)
    table = AnnotationTable.from_boxes(
        "val.json",
        [Category(int(i), f"class {i}") for i in ids],
        [f"{i}.jpg" for i in range(images)],
        sizes,
        boxes,
        image_index,
        rng.integers(0, len(ids), len(image_index)),
    )
    return replace(table, image_ids=100 + 3 * np.arange(images))


TABLE = annotations()


def predicted(table=TABLE, noise=0.03, seed=1):
    """Nearly every annotated box, and twice as many that are anywhere, with lower scores."""
    rng = np.random.default_rng(seed)
    right = table.boxes_xywh * rng.uniform(1 - noise, 1 + noise, table.boxes_xywh.shape)
    image = np.tile(table.image_index, 3)
    sizes = table.sizes[image][:, ::-1]
    boxes = rng.uniform(0, 0.5, (len(image), 4)) * np.concatenate((sizes, sizes), 1)
    boxes[: len(right)] = right
    scores = rng.uniform(0, 0.5, len(image))
    scores[: len(right)] += 0.5
    ids = table.category_ids[np.tile(table.category_index, 3)]
    order = rng.permutation(len(image))
    columns = (table.image_ids[image], ids, scores, boxes)
    return Predictions(*(column[order] for column in columns))


def wide(predictions, table=TABLE):
    """(N, 4) width, height, width, height of the images."""
    index = np.searchsorted(table.image_ids, predictions.image_ids)
    return table.sizes[index][:, [1, 0, 1, 0]].astype(float)


def to_xyxy(boxes):
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)


def letterboxed(p):
    size = wide(p)
    scale = 640 / size.max(1, keepdims=True)
    border = (640 - size[:, :2] * scale) / 2
    return np.concatenate((p.boxes[:, :2] * scale + border, p.boxes[:, 2:] * scale), 1)


BOXES = {
    "boxes are x1 y1 x2 y2: write x2 - x1": lambda p: to_xyxy(p.boxes),
    "boxes are centre x, centre y, width, height: subtract": lambda p: np.concatenate(
        (p.boxes[:, :2] + p.boxes[:, 2:] / 2, p.boxes[:, 2:]), 1
    ),
    "boxes are y1 x1 y2 x2": lambda p: to_xyxy(p.boxes)[:, [1, 0, 3, 2]],
    "boxes are fractions of the image, 0..1": lambda p: p.boxes / wide(p),
    "boxes are x1 y1 x2 y2, fractions of the image": lambda p: to_xyxy(p.boxes) / wide(p),
    "pixels of the image resized to 640x640": lambda p: p.boxes / wide(p) * 640,
    "x1 y1 x2 y2, in pixels of the image resized to 1024x1024": lambda p: to_xyxy(p.boxes) / wide(p) * 1024,
    "resized to a long side of 1333": lambda p: p.boxes * 1333 / wide(p).max(1, keepdims=True),
    "resized to a short side of 800": lambda p: p.boxes * 800 / wide(p).min(1, keepdims=True),
    "a square of 640 with the image in its middle": letterboxed,
}


@pytest.mark.parametrize("hint", BOXES)
def test_boxes_in_another_form(hint):
    right = predicted()
    wrong = replace(right, boxes=BOXES[hint](right))
    (line,) = hints(TABLE, wrong)
    assert hint in line and "of the best boxes fit annotated ones then" in line


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda ids: ids - 1, "image ids are one too small: add 1"),
        (lambda ids: ids + 1, "image ids are one too large: subtract 1"),
        (lambda ids: (ids - 100) // 3, "positions in the list of images, from 0"),
        (lambda ids: ids + 10**6, "no prediction is of an image of val.json: its ids are 100 .. 277"),
    ],
)
def test_image_ids(change, hint):
    right = predicted()
    assert hint in " ".join(hints(TABLE, replace(right, image_ids=change(right.image_ids))))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda ids: ids - 1, "category ids are one too small (counted from 0?): add 1 to each category_id"),
        (lambda ids: ids + 1, "category ids are one too large"),
        (lambda ids: np.searchsorted(IDS, ids), "category ids are positions in the list of classes, from 0"),
        (lambda ids: np.roll(IDS, 5)[np.searchsorted(IDS, ids)], "those of another list of classes"),
        (lambda ids: np.full_like(ids, 2), "all predictions are of category_id 2"),
        (lambda ids: np.random.default_rng(0).choice(IDS, len(ids)), "of them have their class: were"),
    ],
)  # fmt: skip
def test_category_ids(change, hint):
    right = predicted()
    wrong = replace(right, category_ids=change(right.category_ids))
    assert hint in " ".join(hints(TABLE, wrong))


def test_ids_of_coco_for_annotations_that_count_80_classes():
    table = annotations(80, np.arange(80))
    right = predicted(table)
    coco = np.array([i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}])
    (line,) = hints(table, replace(right, category_ids=coco[right.category_ids]))
    assert "category ids are COCO's own, 1..90 with gaps" in line


def test_two_mistakes_at_once():
    right = predicted()
    wrong = replace(right, boxes=to_xyxy(right.boxes), category_ids=right.category_ids - 1)
    text = " ".join(hints(TABLE, replace(wrong, image_ids=wrong.image_ids - 1)))
    assert all(
        hint in text for hint in ("image ids are one too small", "x1 y1 x2 y2", "category ids are one")
    )


def test_scores():
    right = predicted()
    assert "scores reach 99" in hints(TABLE, replace(right, scores=right.scores.round(2) * 100))[0]
    assert "all scores are 0.5" in hints(TABLE, replace(right, scores=np.full(len(right), 0.5)))[-1]


@pytest.mark.parametrize("seed", range(5))
def test_right_predictions_and_those_of_an_untrained_model_get_no_hint(seed):
    table = annotations(seed=seed)
    assert hints(table, predicted(table, seed=seed)) == []
    right = predicted(table, seed=seed)
    rng = np.random.default_rng(seed)
    anywhere = replace(right, boxes=rng.uniform(0, 0.5, (len(right), 4)) * wide(right, table))
    assert hints(table, anywhere) == []
    assert hints(table, replace(right, boxes=np.zeros_like(right.boxes))) == []
    assert hints(table, replace(right, boxes=np.full_like(right.boxes, np.nan))) == []


def test_they_are_for_results_near_0_and_change_nothing():
    right = predicted()
    wrong = replace(right, boxes=right.boxes / wide(right))
    before = wrong.boxes.copy()
    metrics = evaluate_boxes(TABLE, wrong).metrics
    assert is_near_zero(metrics, wrong) and hints(TABLE, wrong)
    assert evaluate_boxes(TABLE, wrong).metrics == metrics and np.array_equal(wrong.boxes, before)
    assert not is_near_zero(evaluate_boxes(TABLE, right).metrics, right)
    assert not is_near_zero({"AP50": -1.0}, right)


@pytest.mark.parametrize("seed", range(4))
def test_no_predictions_are_too_odd(seed):
    """An evaluation must not end because of a hint."""
    content, results = (lvis_case if seed % 2 else coco_case)(seed)
    table = tiny.table_of(content, "val.json")
    rng = np.random.default_rng(seed)
    odd = Predictions.from_results(results)
    values = rng.choice([0, -1, 1e300, np.nan, np.inf, 5], odd.boxes.shape)
    boxes = np.where(rng.random(odd.boxes.shape) < 0.2, values, odd.boxes)
    ids = rng.choice([0, -5, 2**62, 7], len(odd))
    for change in ({}, {"boxes": boxes}, {"image_ids": ids}, {"category_ids": ids, "boxes": boxes}):
        assert all(isinstance(line, str) for line in hints(table, replace(odd, **change)))


def test_an_evaluation_near_0_logs_them(tmp_path, caplog):
    caplog.set_level("INFO")
    classes = ClassTable.from_categories(TABLE.categories)
    evaluator = BoxEvaluator(TABLE, classes, tmp_path)
    for row, image_id in enumerate(TABLE.image_ids.tolist()):
        rows = TABLE.rows(row)
        fractions = to_xyxy(TABLE.boxes_xywh[rows]) / TABLE.sizes[row][[1, 0, 1, 0]]
        scores = torch.full((len(fractions),), 0.5)
        labels = torch.from_numpy(TABLE.category_index[rows].astype(np.int64))
        evaluator.update([image_id], [Detections(scores, labels, torch.from_numpy(fractions).float())])
    assert evaluator.finish()["AP50"] == 0
    assert "AP50 is near 0; a hint: the boxes are fractions of the image, 0..1" in caplog.text
