import numpy as np
import pytest
import torch

from datasets.augment.mosaic import Mosaic, fitting_size
from datasets.sample import Sample

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def example(height, width, box, colour):
    """A black example with a coloured rectangle (x0, y0, x1, y1) that is its one box."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    x0, y0, x1, y1 = box
    image[:, y0:y1, x0:x1] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return Sample.from_arrays(
        image, torch.tensor([box], dtype=torch.float32), torch.tensor([COLOURS.index(colour)])
    )


def pixels_box(image, colour):
    """(x0, y0, x1, y1) of what is drawn in `colour`, or None."""
    near = (image.float() - torch.tensor(colour)[:, None, None].float()).abs().amax(0) < 100
    ys, xs = torch.nonzero(near, as_tuple=True)
    if not len(xs):
        return None
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


SAMPLES = [
    example(80, 100, (20, 30, 90, 70), COLOURS[0]),
    example(400, 200, (40, 100, 180, 320), COLOURS[1]),
    example(160, 160, (10, 10, 150, 150), COLOURS[2]),
    example(30, 90, (30, 6, 84, 24), COLOURS[3]),
]


@pytest.mark.parametrize(("x", "y"), [(160, 160), (80, 240), (240, 80), (100, 130), (237, 201)])
def test_boxes_follow_their_pixels(x, y):
    mosaic = Mosaic(size=320).at(SAMPLES, x, y)
    assert mosaic.size == (320, 320)
    boxes = dict(zip(mosaic.labels.tolist(), mosaic.boxes.tolist(), strict=True))
    for label, colour in enumerate(COLOURS):
        drawn = pixels_box(mosaic.image, colour)
        assert (drawn is None) == (label not in boxes)
        if drawn is not None:
            assert boxes[label] == pytest.approx(drawn, abs=1.5)


def test_each_image_fits_half_the_canvas_and_meets_at_the_centre():
    mosaic = Mosaic(size=320).at(
        [example(h, w, (0, 0, w, h), c) for (h, w), c in zip([(50, 100)] * 4, COLOURS, strict=True)], 160, 160
    )
    assert mosaic.boxes.tolist() == [
        [0, 80, 160, 160],
        [160, 80, 320, 160],
        [0, 160, 160, 240],
        [160, 160, 320, 240],
    ]
    # Nothing lies above and below.
    assert (mosaic.image[:, :79] == 114).all() and (mosaic.image[:, 241:] == 114).all()


def test_boxes_are_clipped_and_only_empty_ones_go():
    whole = [example(100, 100, (0, 0, 100, 100), c) for c in COLOURS]
    mosaic = Mosaic(size=200, fill=7).at(whole, 50, 150)
    assert mosaic.boxes.tolist() == [
        [0, 50, 50, 150],
        [50, 50, 150, 150],
        [0, 150, 50, 200],
        [50, 150, 150, 200],
    ]
    assert (mosaic.image[:, :50] == 7).all() and (mosaic.image[:, :, 150:] == 7).all()
    outside = example(100, 100, (0, 0, 40, 40), COLOURS[0])
    assert Mosaic(size=200).at([outside, *whole[1:]], 50, 150).labels.tolist() == [1, 2, 3]


def test_centre_is_drawn_from_its_range_for_both_directions():
    mosaic = Mosaic(size=200, centre=(0.5, 1.5))
    whole = [example(100, 100, (0, 0, 100, 100), c) for c in COLOURS]
    corners = np.array([mosaic(whole, np.random.default_rng(s)).boxes[0, 2:].tolist() for s in range(200)])
    assert corners.min() >= 50 and corners.max() <= 150
    assert corners.min(0).max() < 58 and corners.max(0).min() > 142
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.2


def test_same_generator_same_mosaic():
    first, second, third = (Mosaic(size=64)(SAMPLES, np.random.default_rng(s)) for s in (3, 3, 4))
    assert torch.equal(first.image, second.image) and torch.equal(first.boxes, second.boxes)
    assert not torch.equal(first.image, third.image)


def test_images_are_scaled_up_and_down():
    assert fitting_size((10, 20), 640) == (320, 640)
    assert fitting_size((3000, 1000), 640) == (640, 213)
    assert fitting_size((1, 5000), 640) == (1, 640)
