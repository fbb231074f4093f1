"""The rows of a YOLO label file: boxes and outlines, as fractions of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from util.errors import UserError
from util.text_files import read_lines

# Annotation tools round past the edge; larger values are pixels, not fractions of the image.
_FARTHEST = 2.0

Row = tuple[int, float, float, float, float]
"""(class number, centre x, centre y, width, height), all but the first in 0..1 of the image."""


def parse_labels(path: Path, names: Sequence[str], *, keypoints: int = 0) -> tuple[list[Row], list[str]]:
    """The boxes of a label file, and a message for every invalid line. Without a file there are no boxes.

    A line is `class x y width height`, or a polygon `class x1 y1 x2 y2 x3 y3 ...`, which becomes its bounding
    box. keypoints: number of keypoint values after each box; they are ignored, and there are no polygons.
    """
    try:
        lines = read_lines(path) if path.exists() else []
    except UserError as error:
        return [], [str(error)]
    except (OSError, ValueError) as error:
        return [], [f"{path!s:.200}: cannot be read ({error})"]
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
    polygon = len(words) >= 7 and len(words) % 2 == 1
    if len(words) != 5 and not polygon:
        raise ValueError(f"{len(words)} values, not 5 (class x y width height) or a polygon of 3 points")
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f"{' '.join(words)[:60]!r} contains a value that is not a number") from None
    if not label.is_integer() or not 0 <= label < len(names):
        raise ValueError(f"class {words[0]:.60}, but there are {len(names)} classes (0..{len(names) - 1})")
    if not all(math.isfinite(v) and abs(v) <= _FARTHEST for v in values):
        raise ValueError(f"{' '.join(words[1:])[:60]} are not fractions of the image, 0..1; are they pixels?")
    if polygon:
        xs, ys = values[0::2], values[1::2]
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    x, y, width, height = values
    return int(label), x, y, width, height


def in_pixels(box: Sequence[float], height: int, width: int) -> tuple[float, ...]:
    """CXCYWH in 0..1 -> XYWH in pixels."""
    x, y, w, h = box
    return (x - w / 2) * width, (y - h / 2) * height, w * width, h * height
