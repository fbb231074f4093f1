"""Two lists of detections of one image, compared one to one. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from inference.prediction import Prediction


@dataclass(frozen=True)
class Tolerance:
    """box: pixels of the file, the largest of four coordinates.  score: 0..1."""

    box: float
    score: float


@dataclass
class Comparison:
    """What comparing images has shown so far.

    pairs:       detections compared.
    worst_box:   the largest difference of a coordinate, pixels.
    worst_score: the largest difference of a score.
    faults:      one line for each detection without a partner within the tolerance.
    """

    pairs: int = 0
    worst_box: float = 0.0
    worst_score: float = 0.0
    faults: list[str] = field(default_factory=list)


def compare(
    expected: Prediction, found: Prediction, threshold: float, tolerance: Tolerance, result: Comparison
) -> None:
    """Adds one image to `result`: every detection of a score of at least `threshold`, whoever has it.

    Detections of one class are paired so that the boxes differ least in sum. A score within
    `tolerance.score` of the threshold may be on either side of it: such a detection of one list may be
    paired with one of the other, but need not be. Order does not matter, so neither do ties.
    """
    low, high = threshold - tolerance.score, threshold + tolerance.score
    one, two = expected.select(expected.scores >= low), found.select(found.scores >= low)
    for label in np.union1d(one.labels, two.labels).tolist():
        rows, columns = np.flatnonzero(one.labels == label), np.flatnonzero(two.labels == label)
        boxes = np.abs(one.boxes_xyxy[rows, None] - two.boxes_xyxy[None, columns]).max(-1, initial=0)
        scores = np.abs(one.scores[rows, None] - two.scores[None, columns])
        # Equal boxes of one class (two queries on one object) are told apart by their scores.
        paired = linear_sum_assignment(boxes / tolerance.box + scores / tolerance.score)
        for row, column in zip(*paired, strict=True):
            box, score = float(boxes[row, column]), float(scores[row, column])
            best = max(one.scores[rows[row]], two.scores[columns[column]])
            if best < threshold:
                continue
            if box > tolerance.box or score > tolerance.score:
                result.faults.append(
                    f"{_described(one, rows[row])}: box differs by {box:.3g} px, score by {score:.3g}"
                )
            result.pairs += 1
            result.worst_box, result.worst_score = max(result.worst_box, box), max(result.worst_score, score)
        for side, own, chosen in ((one, rows, paired[0]), (two, columns, paired[1])):
            for index in np.setdiff1d(np.arange(len(own)), chosen):
                if side.scores[own[index]] >= high:
                    where = "exported file" if side is one else "checkpoint"
                    result.faults.append(f"{_described(side, own[index])}: not in the {where}'s detections")


def set_threshold(predictions: Sequence[Prediction], threshold: float, at_least: int) -> float:
    """`threshold`, or lower where fewer than `at_least` detections of all images reach it: the score of
    the one that makes up their number."""
    scores = np.sort(np.concatenate([p.scores for p in predictions]))[::-1]
    return min(threshold, float(scores[min(at_least, len(scores)) - 1])) if len(scores) else threshold


def _described(prediction: Prediction, row: int) -> str:
    box = ", ".join(f"{v:.1f}" for v in prediction.boxes_xyxy[row])
    name = f"{prediction.file or 'image'}: {prediction.names[row]} {prediction.scores[row]:.4f}"
    return f"{name} at ({box})"
