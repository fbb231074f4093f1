"""Detections are compared one to one: what one side lacks, moves or scores otherwise is a fault."""

import numpy as np
import pytest

from inference.export.compare import Comparison, Tolerance, compare, set_threshold
from inference.prediction import make_prediction

TOLERANCE = Tolerance(box=0.05, score=1e-4)
BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20], [40, 40, 60, 70]], np.float32)


def prediction(scores=(0.9, 0.5, 0.4), labels=(0, 0, 1), boxes=BOXES):
    arrays = np.array(scores, np.float32), np.array(labels, np.int64), np.array(boxes, np.float32)
    return make_prediction(("cup", "urn"), *arrays, (100, 100))


def compared(found, expected=None, threshold=0.05) -> Comparison:
    result = Comparison()
    compare(expected or prediction(), found, threshold, TOLERANCE, result)
    return result


def test_order_does_not_matter_and_small_differences_are_measured():
    found = prediction((0.4, 0.50005, 0.9), (1, 0, 0), BOXES[[2, 1, 0]] + np.float32(0.03))
    result = compared(found)
    assert not result.faults and result.pairs == 3
    assert result.worst_box == pytest.approx(0.03, abs=1e-5)
    assert result.worst_score == pytest.approx(5e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (prediction(boxes=BOXES + np.float32(0.06)), "box differs by 0.06"),
        (prediction((0.9, 0.5, 0.41)), "score by 0.01"),
        (prediction(labels=(0, 1, 1)), "not in the"),
        (
            prediction((0.9, 0.5), (0, 0), BOXES[:2]),
            "urn 0.4000 at (40.0, 40.0, 60.0, 70.0): not in the exported",
        ),
        (prediction((0.9, 0.5, 0.4, 0.3), (0, 0, 1, 1), BOXES[[0, 1, 2, 2]]), "not in the checkpoint's"),
    ],
)
def test_what_differs_is_a_fault(found, fault):
    assert any(fault in line for line in compared(found).faults)


def test_a_score_at_the_threshold_may_fall_on_either_side():
    one = prediction((0.9, 0.5, 0.05002))
    assert not compared(prediction((0.9, 0.5, 0.04998)), one).faults
    assert not compared(prediction((0.9, 0.5), (0, 0), BOXES[:2]), one).faults
    assert compared(prediction((0.9, 0.5), (0, 0), BOXES[:2]), prediction((0.9, 0.5, 0.052))).faults


def test_the_threshold_falls_until_there_is_enough_to_compare():
    sets = [prediction(), prediction((0.3, 0.02, 0.01))]
    assert set_threshold(sets, 0.05, 4) == 0.05
    assert set_threshold(sets, 0.05, 5) == pytest.approx(0.02)
    assert set_threshold(sets, 0.05, 50) == pytest.approx(0.01)
