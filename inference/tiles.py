"""Large images in overlapping tiles, so that small objects stay large enough to be seen. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from inference.prediction import Prediction
from inference.protocols import ImageModel
from util.errors import UserError
from util.pixels import Size

# Boxes of one class in two views are the same object from this IoU on.
_SAME_IOU = 0.5
# A box that a tile's border cuts gives way to an uncut one that covers this much of it, with this much of
# its score or more.
_COVERED, _SCORE_RATIO = 0.7, 0.5
# How near to a tile's border a box counts as cut: boxes are not exact to the pixel. Of the tile's side.
_MARGIN = 0.01


@dataclass(frozen=True)
class Tiling:
    """How an image is cut. An image that is no larger than a tile is not.

    side:    of a tile, pixels of the upright image.
    overlap: of neighbours, as a part of the side; an object that is smaller lies whole in some tile.
    Raises UserError for a side below 16 and an overlap outside 0..0.9.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < 16:
            raise UserError(f"a tile must have at least 16 pixels a side, not {self.side}")
        if not 0 <= self.overlap <= 0.9:
            raise UserError(f"the overlap of tiles must be between 0 and 0.9, not {self.overlap}")

    def windows(self, size: Size) -> list[Window]:
        """The tiles of an image of (height, width), evenly spread, row by row; none where one would do."""
        if max(size) <= self.side:
            return []
        height, width = (min(length, self.side) for length in size)
        tops, lefts = (self._starts(length) for length in size)
        return [Window(top, left, height, width) for top, left in product(tops, lefts)]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        step = self.side * (1 - self.overlap)
        count = math.ceil((length - self.side) / step) + 1
        return [round(i * (length - self.side) / (count - 1)) for i in range(count)]


class Window(NamedTuple):
    """Pixels of the image."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """The (height, width, 3) part of an (H, W, 3) image, copied."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width].copy()

    def cuts(self, boxes_xyxy: np.ndarray, size: Size) -> np.ndarray:
        """(N,) bool: which boxes (pixels of the image) reach a border of the window inside the image."""
        near = _MARGIN * max(self.height, self.width)
        x1, y1, x2, y2 = boxes_xyxy.T
        bottom, right = self.top + self.height, self.left + self.width
        result = np.zeros(len(boxes_xyxy), bool)
        for inside, reaches in (
            (self.left > 0, x1 <= self.left + near),
            (self.top > 0, y1 <= self.top + near),
            (right < size[1], x2 >= right - near),
            (bottom < size[0], y2 >= bottom - near),
        ):
            if inside:
                result |= reaches
        return result


def detect_tiled(
    model: ImageModel, images: Sequence[np.ndarray], tiling: Tiling, batch_size: int = 1
) -> list[Prediction]:
    """As `ImageModel.detect`, from each whole image and its tiles, merged by `merge_views`.

    batch_size: tiles that the network sees at a time. An image of one tile gives what `detect` gives.
    """
    found = []
    for pixels, whole in zip(images, model.detect(images), strict=True):
        windows = tiling.windows(whole.size)
        tiles: list[Prediction] = []
        for start in range(0, len(windows), batch_size):
            tiles += model.detect([w.crop(pixels) for w in windows[start : start + batch_size]])
        found.append(merge_views(whole, windows, tiles) if windows else whole)
    return found


def merge_views(whole: Prediction, windows: Sequence[Window], tiles: Sequence[Prediction]) -> Prediction:
    """One prediction of what a whole image and its tiles show, best first. Class by class:

    1. A box that reaches an inner border of its tile is dropped where another view has an uncut box that
       covers at least 70 % of it with at least half of its score.
    2. From the best score down, a box is dropped where a better one of another view overlaps it with an IoU
       of 0.5 or more. Boxes of one view never drop one another: the network has done that itself.
    tiles: of the windows, in pixels of the tile.
    """
    parts = [(whole.boxes_xyxy, np.zeros(len(whole), bool))]
    for window, tile in zip(windows, tiles, strict=True):
        boxes = tile.boxes_xyxy + np.array([window.left, window.top] * 2, np.float32)
        parts.append((boxes, window.cuts(boxes, whole.size)))
    views = [whole, *tiles]
    union = Prediction(
        names=tuple(name for view in views for name in view.names),
        scores=np.concatenate([view.scores for view in views]),
        boxes_xyxy=np.concatenate([boxes for boxes, _ in parts]),
        labels=np.concatenate([view.labels for view in views]),
        size=whole.size,
        file=whole.file,
    )
    cut = np.concatenate([c for _, c in parts])
    view_index = np.repeat(np.arange(len(views)), [len(view) for view in views])
    kept: list[int] = []
    for label in np.unique(union.labels):
        rows = np.flatnonzero(union.labels == label)
        rows = rows[np.argsort(-union.scores[rows], kind="stable")]
        chosen = _merge_class(union.boxes_xyxy[rows], union.scores[rows], view_index[rows], cut[rows])
        kept += rows[chosen].tolist()
    order = np.array(sorted(kept), np.int64)
    return union.select(order[np.argsort(-union.scores[order], kind="stable")])


def _merge_class(boxes: np.ndarray, scores: np.ndarray, views: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Indices of the boxes of one class that stay. scores: descending."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    alive = np.ones(len(boxes), bool)
    uncut = np.flatnonzero(~cut)
    for i in np.flatnonzero(cut).tolist():
        covered = _intersections(boxes[i], boxes[uncut]) >= _COVERED * areas[i]
        alive[i] = not (
            covered & (views[uncut] != views[i]) & (scores[uncut] >= _SCORE_RATIO * scores[i])
        ).any()
    for i in range(len(boxes)):
        if alive[i]:
            others = np.flatnonzero(alive & (views != views[i]))
            others = others[others > i]
            shared = _intersections(boxes[i], boxes[others])
            union = areas[i] + areas[others] - shared
            alive[others[shared >= _SAME_IOU * union.clip(1e-9)]] = False
    return np.flatnonzero(alive)


def _intersections(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) areas that a box (4,) shares with (N, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return (high - low).clip(0).prod(1)
