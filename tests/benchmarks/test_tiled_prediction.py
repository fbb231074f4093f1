"""Mosaics and back: each detection returns to its image, in that image's pixels."""

import numpy as np

from benchmarks.tiled_prediction import make_mosaic, split_mosaic
from inference.prediction import make_prediction


def test_detections_return_to_their_images():
    images = [np.full((4, 6, 3), 10 * i, np.uint8) for i in range(1, 4)]
    mosaic = make_mosaic(images, 2)
    assert mosaic.shape == (8, 12, 3)
    assert mosaic[3, 5, 0] == 10 and mosaic[3, 6, 0] == 20 and mosaic[4, 5, 0] == 30 and mosaic[4, 6, 0] == 0
    # In the third image, in the second, in the first but reaching out of it, and in none.
    boxes = np.array([[1, 5, 3, 7], [7, 0, 9, 2], [-1, -2, 4, 4], [8, 6, 9, 7]], np.float32)
    found = make_prediction(("a",), np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int), boxes, (8, 12))
    parts = list(split_mosaic(found, 3, 2))
    assert [p.size for p in parts] == [(4, 6)] * 3
    assert [p.boxes_xyxy.tolist() for p in parts] == [[[-1, -2, 4, 4]], [[1, 0, 3, 2]], [[1, 1, 3, 3]]]
