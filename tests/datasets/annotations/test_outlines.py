"""Boxes around outlines, where annotations have no `bbox`."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from datasets.annotations.json_reader import read_annotations
from datasets.annotations.outlines import box_around
from tests.datasets import tiny
from util.errors import UserError


def test_polygons_and_one_alone():
    assert box_around([[10, 20, 30.5, 20, 30.5, 40]]) == (10, 20, 20.5, 20)
    assert box_around([10, 20, 30, 20, 30, 40]) == (10, 20, 20, 20)
    assert box_around([[10, 20, 30, 20, 30, 40], [0, 50, 1, 50, 1, 60, 0, 60]]) == (0, 20, 30, 40)


@pytest.mark.parametrize("seed", range(40))
def test_masks_have_pycocotools_box(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    mask = rng.random((height, width)) < rng.choice([0.002, 0.05, 0.5, 0.95, 1.0])
    if seed % 3 == 0:
        mask[:, : width // 2] = mask[: height // 2] = False
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    column = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(column)) + 1
    counts = np.diff([0, *ends, len(column)]).tolist()
    plain = {"size": [int(height), int(width)], "counts": [0, *counts] if column[0] else counts}
    expected = coco_mask.toBbox(compressed).tolist()
    assert list(box_around(plain)) == expected
    assert list(box_around(plain | {"counts": compressed["counts"].decode()})) == expected


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("[[1, 2]]", "neither polygons nor a mask"),
        (7, "neither polygons nor a mask"),
        ([["1", "2", "3", "4", "5", "6"]], "neither polygons nor a mask"),
        ([None], "neither polygons nor a mask"),
        ([[1, 2, 3, 4]], "x and y of at least 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "x and y of at least 3 points"),
        ({"counts": [4]}, r"`size` is not \\[height, width\\]"),
        ({"counts": [4], "size": [2, 2.0]}, r"`size` is not \\[height, width\\]"),
        ({"counts": [4], "size": [2**20, 2**20]}, r"`size` is not \\[height, width\\]"),
        ({"counts": [5], "size": [2, 2]}, "cover 5 pixels, not 2 x 2"),
        ({"counts": [5, -1], "size": [2, 2]}, "`counts` are no run lengths"),
        ({"counts": None, "size": [2, 2]}, "`counts` are no run lengths"),
        ({"counts": "4\u8f66", "size": [2, 2]}, "`counts` are no run lengths"),
        ({"counts": "o" * 10, "size": [2, 2]}, "`counts` are no run lengths"),
        ({"counts": "oo", "size": [2, 2]}, "`counts` end early"),
        ({"counts": "@", "size": [2, 2]}, "`counts` are no run lengths"),
    ],
)
def test_what_is_no_outline_is_named_with_its_annotation(tmp_path, segmentation, message):
    with pytest.raises(ValueError, match=message.replace("\\\\", "\\")):
        box_around(segmentation)
    content = tiny.detection_content(4, "train")[0]
    content["annotations"][2].update(bbox=None, segmentation=segmentation)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a\.json: annotation 3: has no `bbox`, and of its `segmentation`: "):
        read_annotations(path)


def test_annotations_without_bbox_get_the_box_around_their_outline(tmp_path, caplog):
    content = tiny.detection_content(4, "train")[0]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    expected = read_annotations(path)
    for i, row in enumerate(content["annotations"]):
        x, y, w, h = row["bbox"]
        mask = np.zeros((60, 80), np.uint8, order="F")
        mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
        encoded = coco_mask.encode(mask)
        forms = (
            [[x, y, x + w, y, x + w, y + h, x, y + h]],
            {"size": [60, 80], "counts": encoded["counts"].decode()},
        )
        row["segmentation"] = forms[i % 2]
        if i < 2:
            del row["bbox"]
        elif i < 4:
            row["bbox"] = [] if i == 2 else None
    path.write_text(json.dumps(content))
    table = read_annotations(path)
    assert np.array_equal(table.boxes_xywh, expected.boxes_xywh)
    assert "4 annotations have no `bbox`; theirs is the box around `segmentation`" in caplog.text
    content["annotations"][0]["segmentation"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="annotation 1: has neither `bbox` nor `segmentation`"):
        read_annotations(path)
