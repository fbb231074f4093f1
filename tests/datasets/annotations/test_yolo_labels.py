"""Rows of YOLO label files, as a table: what each one is, or what is wrong with it."""

import numpy as np
import pytest

from datasets.annotations.yolo_labels import LabelReader

NAMES = ("red", "oat milk", "blue")
BOX = (2, 0.5, 0.4, 0.2, 0.1)


def read(tmp_path, *lines, keypoints=None):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    reader = LabelReader(NAMES, keypoints)
    rows, faults = reader.read(path)
    return rows, faults + reader.doubts()


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("2 0.5 0.4 0.2 0.1", BOX),
        ("2\t0.5  0.4\t0.2 0.1 \r", BOX),
        ("2.0 0.5 0.4 0.2 0.1", BOX),
        ("2.000000e+00 5.000000e-01 4.000000e-01 2.000000e-01 1.000000e-01", BOX),
        ("2,0.5,0.4,0.2,0.1", BOX),
        ("2, 0.5, 0.4, 0.2, 0.1,", BOX),
        ("2 0.5 0.4 0.2 0.1 # blue", BOX),
        ("2 0.5 0.4 0.2 0.1#", BOX),
        ("# 2 0.5 0.4 0.2 0.1", None),
        ("0 0.5 0.5 0 0.1", (0, 0.5, 0.5, 0, 0.1)),
        ("0 -0.01 0.5 0.1 1.1", (0, -0.01, 0.5, 0.1, 1.1)),
        # Outlines: a triangle, a rectangle, a rotated one, one past the edge, one with a repeated point.
        ("2 0.4 0.35 0.6 0.35 0.5 0.45", BOX),
        ("2 0.4 0.35 0.6 0.35 0.6 0.45 0.4 0.45", BOX),
        ("2 0.5 0.35 0.6 0.4 0.5 0.45 0.4 0.4", BOX),
        ("0 -0.02 0.5 0.1 0.5 0.1 1.02", (0, 0.04, 0.76, 0.12, 0.52)),
        ("2 0.4 0.35 0.4 0.35 0.6 0.35 0.6 0.45 0.4 0.45", BOX),
        ("0 0.9 0.8 1 0.8 1 1", (0, 0.95, 0.9, 0.1, 0.2)),
        ("0 0.9 0.8 1 0.8 1 1.0", (0, 0.95, 0.9, 0.1, 0.2)),
        ("0 0.2 0.3 0.2 0.3 0.2 0.3", (0, 0.2, 0.3, 0, 0)),
        ("0 0.2 0.3 0.5 0.3 0.4 0.3", (0, 0.35, 0.3, 0.3, 0)),
        # Ten values at the image's lower and right edge: whole numbers where flags would stand.
        ("0 0.8 0.9 0.9 0.8 0.95 0.8 1 1 0.8 1", (0, 0.9, 0.9, 0.2, 0.2)),
    ],
)
def test_rows_that_are_read(tmp_path, line, row):
    rows, faults = read(tmp_path, line)
    assert not faults
    assert len(rows) == (row is not None)
    if row:
        np.testing.assert_allclose(rows[0], row, atol=1e-12)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0", "1 values, not 5"),
        ("0 0.5 0.5 0.1", "4 values, not 5"),
        ("red 0.5 0.4 0.2 0.1", "class 'red' by name; write its number, 0"),
        ("oat milk 0.5 0.4 0.2 0.1", "class 'oat' is not a number"),
        ("1_0 0.5 0.4 0.2 0.1", "class '1_0' is not a number"),
        ("3 0.5 0.4 0.2 0.1", "class 3, but there are 3 classes (0..2)"),
        ("0.7 0.5 0.4 0.2 0.1", "class 0.7, but there are"),
        ("2 0,5 0,4 0,2 0,1", "decimals are written with a point"),
        ("2,0.5,,0.2,0.1", "decimals are written with a point"),
        ("2;0.5;0.4;0.2;0.1", "is not a number"),
        ("2 0.5 0.4 0.2 x", "contains a value that is not a number"),
        ("0 0.5 0.5 -0.2 0.1", "a width or height below 0"),
        ("0 50 40 20 10", "are they pixels?"),
        ("0 0.5 0.5 0.2 2.5", "are they pixels?"),
        ("0 40 35 60 35 50 45", "are they pixels?"),
        ("0 0.4 0.35 0.6 0.35 nan 0.45", "are they pixels?"),
        ("0 0.4 0.4 0.5 0.5 0.6 0.6", "no outline, its points lie on a line"),
        # What predictors and trackers write: a confidence, an id, both.
        (
            "1 0.098958 0.421875 0.197917 0.375 0.93",
            "a box and a confidence or a track's id; are these predic",
        ),
        ("1 0.098958 0.421875 0.197917 0.375 17", "a box and a confidence or a track's id; are these predic"),
        (
            "1 0.098958 0.421875 0.197917 0.375 0.93 1",
            "a box, a confidence and a track's id; write `class x y",
        ),
        (
            "1 0.098958 0.421875 0.197917 0.375 0.93 17",
            "a box, a confidence and a track's id; write `class x y",
        ),
        ("1 0.098958 0.421875 0.197917 0.375 0.93 0", "write its last value as 0.0"),
        # A box and keypoints: x, y and a flag.
        ("0 0.5 0.5 0.2 0.2 0.45 0.55 2", "a box and 1 keypoints of x, y and a flag"),
        ("0 0.5 0.5 0.2 0.2 0.45 0.55 7", "not 5 (`class x y width height`) or an outline, x and y"),
        (
            "0 0.5 0.5 0.2 0.2 0.45 0.55 2 0 0 0",
            "a box and 2 keypoints of x, y and a flag; write `kpt_shape: [2, 3]`",
        ),
        (
            "0 0.5 0.5 0.2 0.2" + " 0.45 0.55 1" * 17,
            "a box and 17 keypoints of x, y and a flag; write `kpt_sha",
        ),
    ],
)
def test_rows_that_are_refused(tmp_path, line, message):
    rows, faults = read(tmp_path, line)
    assert not rows and len(faults) == 1 and message in faults[0] and "\n" not in faults[0]
    assert faults[0].startswith(f"{tmp_path / 'a.txt'} line 1: ")


def poses(count, points):
    rng = np.random.default_rng(count)
    for _ in range(count):
        x, y = rng.uniform(0.3, 0.7, 2)
        inside = rng.uniform(-0.1, 0.1, (points, 2)) + (x, y)
        yield " ".join(f"{v:.6f}" for v in (x, y, 0.25, 0.3, *inside.reshape(-1)))


def outlines(count, points):
    """Circles all over the image."""
    rng = np.random.default_rng(count)
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    for _ in range(count):
        x, y = rng.uniform(0.1, 0.9, 2)
        around = np.stack((x + 0.1 * np.cos(angles), y + 0.08 * np.sin(angles)), 1)
        yield " ".join(f"{v:.6f}" for v in around.reshape(-1))


@pytest.mark.parametrize("points", [2, 5, 17])
def test_keypoints_that_no_shape_states_are_found_where_every_row_has_them(tmp_path, points):
    lines = [f"0 {row}" for row in poses(20, points)]
    _, faults = read(tmp_path, *lines)
    assert len(faults) == 1 and f"all 20 rows may be a box and {points} keypoints in it" in faults[0]
    assert f"`kpt_shape: [{points}, 2]`" in faults[0] and "a.txt line 1: " in faults[0]
    for stated, count in ((2 * points, 20), (0, 20)):
        rows, faults = read(tmp_path, *lines, keypoints=stated)
        assert len(rows) == count and not faults
    np.testing.assert_allclose(read(tmp_path, lines[0], keypoints=2 * points)[0][0][3:], (0.25, 0.3))


@pytest.mark.parametrize("points", [4, 6, 20])
def test_outlines_of_equally_many_points_are_outlines(tmp_path, points):
    rows, faults = read(tmp_path, *(f"0 {row}" for row in outlines(20, points)))
    assert len(rows) == 20 and not faults
    np.testing.assert_allclose(np.array(rows)[:, 3], 0.2, atol=0.02)


def test_one_row_of_another_form_shows_that_the_rest_are_outlines(tmp_path):
    lines = [f"0 {row}" for row in poses(20, 5)]
    for other in ("0 0.5 0.5 0.2 0.2", "0 0.9 0.9 1 0.9 1 1 0.9 1", *(f"0 {row}" for row in outlines(1, 7))):
        rows, faults = read(tmp_path, *lines, other)
        assert len(rows) == 21 and not faults
