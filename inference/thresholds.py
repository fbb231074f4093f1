"""The lowest score that is kept: one for all classes, or by frequency group and class. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from util.errors import UserError, nearest

GROUPS = {"rare": "r", "common": "c", "frequent": "f"}
OTHERS = "others"
DEFAULT_SCORE = 0.3

Score = float | Mapping[str, float]
"""One score, or scores by class name and by 'rare', 'common', 'frequent' and 'others'."""


def class_thresholds(score: Score, class_names: Sequence[str], frequencies: Sequence[str]) -> np.ndarray:
    """(C,) float32: the lowest score of each class that is kept.

    A class's own entry wins over its group's, and that over 'others', which is DEFAULT_SCORE if not given.
    Raises UserError for a score outside 0..1, an unknown key, and a group where no class has a frequency.
    """
    if not isinstance(score, Mapping):
        score = {OTHERS: score}
    for key, value in score.items():
        if not 0 <= value <= 1:
            raise UserError(f"the score of {key!r} must be between 0 and 1, not {value}")
    known = {*class_names, *GROUPS, OTHERS}
    for key in score:
        if key not in known:
            groups = ", ".join((*GROUPS, OTHERS))
            raise UserError(f"score: {key!r} is neither a class nor one of {groups}.{nearest(key, known)}")
    if any(key in GROUPS for key in score) and not any(frequencies):
        raise UserError("score by frequency group: this model does not say how frequent its classes are")
    by_group = {GROUPS[key]: value for key, value in score.items() if key in GROUPS}
    others = score.get(OTHERS, DEFAULT_SCORE)
    values = [
        score.get(name, by_group.get(frequency, others))
        for name, frequency in zip(class_names, frequencies, strict=True)
    ]
    return np.array(values, np.float32)


def parse_score(text: str) -> Score:
    """`0.3`, or `rare=0.2,frequent=0.4,oat milk=0.5`. Raises UserError where a number is missing."""
    try:
        if "=" not in text:
            return float(text)
        pairs = (pair.rpartition("=") for pair in text.split(","))
        return {key.strip(): float(value) for key, _, value in pairs}
    except ValueError:
        raise UserError(f"score {text!r}: give a number, or NAME=NUMBER,...") from None
