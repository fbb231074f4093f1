"""Other forms in which people write boxes, each turned into XYWH in pixels of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Sides of images that networks are given, at which boxes may have been left.
_SIDES = (224, 256, 300, 320, 384, 416, 448, 480, 512, 560, 576, 600, 608, 640, 704, 768, 800, 896, 960,
          1024, 1152, 1280, 1333, 1536)  # fmt: skip

Convert = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(n, 4) numbers as written, (n, 2) float64 (height, width) of their images -> (n, 4)."""


class BoxForm(NamedTuple):
    """name: as in "the boxes are NAME".  fix: how to write them instead.  convert: to XYWH in pixels."""

    name: str
    fix: str
    convert: Convert


def _as_written(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return boxes


def _from_xyxy(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1)


def _from_cxcywh(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), 1)


def _from_yxyx(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return _from_xyxy(boxes[:, [1, 0, 3, 2]], sizes)


AS_IT_SHOULD_BE = BoxForm("", "", _as_written)
_ORDERS = (
    AS_IT_SHOULD_BE,
    BoxForm("x1 y1 x2 y2", "write x2 - x1 and y2 - y1 as width and height", _from_xyxy),
    BoxForm("centre x, centre y, width, height", "subtract half of width and height", _from_cxcywh),
    BoxForm("y1 x1 y2 x2", "write x1, y1, x2 - x1, y2 - y1", _from_yxyx),
)


def unscaled_forms() -> Iterator[BoxForm]:
    """The right form, other orders of the numbers, and both as fractions of the image."""
    yield from _ORDERS
    for order in _ORDERS:
        yield _joined(
            order, "fractions of the image, 0..1", "multiply x by its width and y by its height", _fractions
        )


def scaled_forms(farthest: float) -> Iterator[BoxForm]:
    """Boxes in pixels of a resized image. farthest: the largest coordinate that is written."""
    for side in dict.fromkeys((*_SIDES, round(farthest))):
        for form in _resized(side) if side > 0 else ():
            for order in _ORDERS:
                yield _joined(order, *form)


def _fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return boxes * sizes[:, [1, 0, 1, 0]]


def _resized(side: int) -> Iterator[tuple[str, str, Convert]]:
    def stretched(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return _fractions(boxes / side, sizes)

    def long_side(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return boxes * (sizes.max(1, keepdims=True) / side)

    def short_side(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return boxes * (sizes.min(1, keepdims=True) / side)

    def centred(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        found = long_side(boxes, sizes)
        found[:, :2] -= (sizes.max(1, keepdims=True) - sizes[:, ::-1]) / 2
        return found

    fix = "scale them to the image's own width and height"
    yield f"in pixels of the image resized to {side}x{side}", fix, stretched
    yield f"in pixels of the image resized to a long side of {side}", fix, long_side
    yield f"in pixels of the image resized to a short side of {side}", fix, short_side
    yield (
        f"in pixels of a square of {side} with the image in its middle",
        f"take off the border, then {fix}",
        centred,
    )


def _joined(order: BoxForm, name: str, fix: str, scale: Convert) -> BoxForm:
    """Another order of numbers that are scaled too."""

    def convert(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return scale(order.convert(boxes, sizes), sizes)

    return BoxForm(_listed((order.name, name)), _listed((order.fix, fix)), convert)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(word for word in words if word)
