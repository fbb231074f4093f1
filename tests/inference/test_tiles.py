"""Tiles: they cover an image, and what they show is merged to what one look would give."""

from itertools import pairwise

import numpy as np
import pytest

from inference.load import load_predictor
from inference.prediction import Prediction, make_prediction
from inference.predictor import Predictor
from inference.tiles import Tiling, detect_tiled
from tests.inference.tiny import make_checkpoint
from util.errors import UserError

GREY = 90


class Squares:
    """A perfect detector of bright rectangles on grey: class 0 where they are at least twice as wide as high.

    smallest: narrower ones are not seen, in parts of the image's longer side. shift: moves what is seen, as
    an imprecise network would.
    """

    class_names = ("wide", "other")
    frequencies = ("", "")

    def __init__(self, smallest: float = 0.0) -> None:
        self.smallest = smallest
        self.batches: list[int] = []

    def detect(self, images):
        self.batches.append(len(images))
        return [self._detect(pixels) for pixels in images]

    def _detect(self, pixels: np.ndarray) -> Prediction:
        boxes = []
        for value in np.unique(pixels[pixels > GREY]):
            rows, columns = np.nonzero(pixels[..., 0] == value)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, value / 255]
            if box[2] - box[0] >= self.smallest * max(pixels.shape):
                boxes.append(box)
        found = np.array(sorted(boxes, key=lambda b: -b[4]), np.float32).reshape(-1, 5)
        wide = found[:, 2] - found[:, 0] >= 2 * (found[:, 3] - found[:, 1])
        return make_prediction(
            self.class_names, found[:, 4], (~wide).astype(np.int64), found[:, :4], pixels.shape[:2]
        )


def scene(size, boxes) -> np.ndarray:
    """Each box in a grey of its own, the first the brightest."""
    pixels = np.full((*size, 3), GREY, np.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[y1:y2, x1:x2] = 250 - i
    return pixels


@pytest.mark.parametrize("size", [(100, 100), (101, 100), (240, 1000), (333, 777)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
def test_tiles_cover_the_image_and_overlap_enough(size, overlap):
    tiling = Tiling(100, overlap)
    seen = np.zeros(size, int)
    windows = tiling.windows(size)
    assert (windows == []) == (max(size) <= 100)
    for window in windows:
        part = seen[window.top : window.top + window.height, window.left : window.left + window.width]
        assert part.shape == (window.height, window.width) == (min(size[0], 100), min(size[1], 100))
        part += 1
    assert not windows or seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({window[axis] for window in windows})
        assert all(b - a <= 100 - 100 * overlap + 1 for a, b in pairwise(starts))


def test_an_image_no_larger_than_a_tile_is_predicted_as_without_tiles(tmp_path):
    predictor = load_predictor(make_checkpoint(tmp_path / "checkpoint.pth"), device="cpu", score=0)
    images = [np.random.default_rng(i).integers(0, 255, (60, 96, 3), dtype=np.uint8) for i in range(2)]
    for plain, tiled in zip(
        predictor(images, batch_size=2), predictor(images, batch_size=2, tile=96), strict=True
    ):
        assert plain.names == tiled.names and np.array_equal(plain.boxes_xyxy, tiled.boxes_xyxy)
        assert np.array_equal(plain.scores, tiled.scores)
    larger = predictor(images[0], tile=(48, 0.25))
    assert (np.diff(larger.scores) <= 0).all() and len(larger) > 20


def test_objects_at_borders_are_found_once_and_whole():
    # Across the border of two tiles, of four, inside a tile, and larger than any tile.
    boxes = [(90, 20, 108, 36), (85, 82, 105, 98), (10, 130, 30, 150), (20, 160, 290, 190)]
    image = scene((200, 300), boxes)
    found = detect_tiled(Squares(), [image], Tiling(100, 0.3))[0]
    assert sorted(map(tuple, found.boxes_xyxy.astype(int).tolist())) == sorted(boxes)
    assert found.names.count("wide") == 1 and found.size == (200, 300)


def test_small_objects_are_found_only_in_tiles():
    image = scene((200, 300), [(150, 90, 166, 106), (40, 40, 120, 120)])
    model = Squares(smallest=0.1)
    assert len(model.detect([image])[0]) == 1
    model.batches.clear()
    found = detect_tiled(model, [image], Tiling(100, 0.3), batch_size=5)[0]
    assert (150, 90, 166, 106) in map(tuple, found.boxes_xyxy.astype(int).tolist())
    assert max(model.batches) == 5


def test_neighbours_that_one_view_tells_apart_stay():
    # Two boxes of one class with an IoU above 0.5, both seen by every view that sees one of them.
    class Twins(Squares):
        def _detect(self, pixels):
            found = super()._detect(pixels)
            boxes = np.concatenate([found.boxes_xyxy, found.boxes_xyxy + 2])
            scores, labels = np.tile(found.scores, 2), np.tile(found.labels, 2)
            return make_prediction(self.class_names, scores, labels, boxes, found.size)

    image = scene((100, 160), [(70, 40, 90, 60)])
    assert len(detect_tiled(Twins(), [image], Tiling(100, 0.4))[0]) == 2


def test_unfit_tiles_are_named():
    with pytest.raises(UserError, match="at least 16 pixels"):
        Predictor(Squares(), tile=8)
    with pytest.raises(UserError, match=r"between 0 and 0\.9, not 1"):
        Predictor(Squares())(scene((20, 20), []), tile=(100, 1.0))
