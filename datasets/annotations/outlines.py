"""The box around an outline, where an annotation has no `bbox`: polygons, or a mask as COCO's run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

_MOST_PIXELS = 2**31
# A run length of 31 bits takes seven characters of five bits each; two more are a sign and a reserve.
_MOST_DIGITS = 9

Box = tuple[float, float, float, float]


def box_around(segmentation: Any) -> Box:
    """(x, y, width, height) in pixels around a value of `segmentation`; (0, 0, 0, 0) around an empty mask.

    segmentation: polygons [[x1, y1, x2, y2, ...], ...] or one of them, or {counts, size} with the run lengths
        of a mask, column by column, as numbers or as COCO's text.
    Raises ValueError saying what is wrong.
    """
    if isinstance(segmentation, Mapping):
        return _box_of_mask(segmentation)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError("neither polygons nor a mask of `counts` and `size`")
    polygons = [segmentation] if all(map(_is_number, segmentation)) else segmentation
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(map(_is_number, polygon)):
            raise ValueError("neither polygons nor a mask of `counts` and `size`")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon is x and y of at least 3 points")
    points = np.array(list(chain.from_iterable(polygons)), np.float64).reshape(-1, 2)
    left, top = points.min(0).tolist()
    right, bottom = points.max(0).tolist()
    return left, top, right - left, bottom - top


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < _MOST_PIXELS)


def _box_of_mask(mask: Mapping[str, Any]) -> Box:
    match mask.get("size"):
        case [int(height), int(width)] if min(height, width) > 0 and height * width < _MOST_PIXELS:
            pass
        case _:
            raise ValueError("its `size` is not [height, width]")
    counts = mask.get("counts")
    if isinstance(counts, str):
        counts = _run_lengths(counts)
    if not isinstance(counts, list) or not all(type(n) is int and 0 <= n < _MOST_PIXELS for n in counts):
        raise ValueError("its `counts` are no run lengths")
    if sum(counts) != height * width:
        raise ValueError(f"its `counts` cover {sum(counts)} pixels, not {height} x {width}")
    ends = np.cumsum(np.array(counts, np.int64))
    # Runs outside and inside of the mask take turns; the first one is outside.
    first, last = ends[0:-1:2], ends[1::2] - 1
    inside = last >= first
    first, last = first[inside], last[inside]
    if not len(first):
        return 0.0, 0.0, 0.0, 0.0
    left, right = int(first[0] // height), int(last[-1] // height)
    # A run that goes on in the next column holds the lower end of one and the upper end of the other.
    spans = first // height < last // height
    top = int(np.where(spans, 0, first % height).min())
    bottom = int(np.where(spans, height - 1, last % height).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _run_lengths(text: str) -> list[int]:
    """COCO's text of run lengths: characters of five bits and a sixth for "goes on", lowest bits first; from
    the fourth on, differences from the last but one."""
    lengths: list[int] = []
    value = digits = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or digits == _MOST_DIGITS:
            raise ValueError(f"its `counts` are no run lengths (at {character!r})")
        value |= (bits & 31) << 5 * digits
        digits += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << 5 * digits
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = digits = 0
    if digits:
        raise ValueError("its `counts` end early")
    return lengths
