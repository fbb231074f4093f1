"""One YOLO label file: a line per box, or per outline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

# Annotation tools round past the edge; what lies further out is in pixels, not in shares of the picture.
_FARTHEST = 2.0

Row = tuple[int, float, float, float, float]
"""(class number, centre x, centre y, width, height), all but the first in 0..1 of the picture."""


def parse_labels(path: Path, names: Sequence[str], *, keypoints: int = 0) -> tuple[list[Row], list[str]]:
    """The boxes of a label file, and what is wrong with it: a message for every line that is.

    A line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...`, an outline, of which the box around
    it is taken. keypoints: how many values of keypoints follow a box, which are not used; there are no
    outlines then. No file: no boxes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return [], []
    except UnicodeDecodeError as error:
        return [], [f"{path}: is not a text file ({error.reason})"]
    rows, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not (words := line.split()):
            continue
        try:
            rows.append(_row(words, names, keypoints))
        except ValueError as error:
            faults.append(f"{path} line {number}: {error}")
    return rows, faults


def _row(words: list[str], names: Sequence[str], keypoints: int) -> Row:
    """Raises ValueError saying what is wrong."""
    if keypoints and len(words) == 5 + keypoints:
        words = words[:5]
    elif keypoints and len(words) != 5:
        raise ValueError(f"{len(words)} values, not {5 + keypoints} (a box and its keypoints, by kpt_shape)")
    outline = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not outline:
        raise ValueError(f"{len(words)} values, not 5 (class x y width height) or an outline of 3 points")
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f"{' '.join(words)[:60]!r} are not all numbers") from None
    if not label.is_integer() or not 0 <= label < len(names):
        raise ValueError(f"class {words[0]}, but there are {len(names)} classes (0..{len(names) - 1})")
    if not all(math.isfinite(v) and abs(v) <= _FARTHEST for v in values):
        raise ValueError(f"{' '.join(words[1:])[:60]} are not shares of the picture, 0..1; are they pixels?")
    if outline:
        x, y = values[0::2], values[1::2]
        left, top, right, bottom = min(x), min(y), max(x), max(y)
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return (int(label), *values)
