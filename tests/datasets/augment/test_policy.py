import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from datasets.augment.policy import (
    AugmentParams,
    EvalPolicy,
    TrainPolicy,
    cropped,
    flipped,
    resized,
)
from datasets.images.preprocess import short_side_size
from datasets.sample import MIN_SIDE, Sample, to_model_input

RECTANGLE = (30, 20, 70, 50)


def sample(height=120, width=160, boxes=(RECTANGLE,)):
    """Grey, with the first box in white."""
    image = torch.full((3, height, width), 60, dtype=torch.uint8)
    x0, y0, x1, y1 = (int(v) for v in boxes[0])
    image[:, y0:y1, x0:x1] = 255
    return Sample.from_arrays(image, torch.tensor(boxes, dtype=torch.float32), torch.arange(len(boxes)))


def white_box(image):
    ys, xs = torch.nonzero(image[0] > 150, as_tuple=True)
    return [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]


def policy(**changes):
    values = {"scales": (96, 128, 150), "max_size": 220, "crop_resize": (100, 130), "crop_sides": (70, 110)}
    return TrainPolicy(**(values | changes))


def test_boxes_follow_their_pixels_through_the_whole_policy():
    sides = set()
    for seed in range(60):
        out = policy(color_jitter=0.2)(sample(), np.random.default_rng(seed))
        sides.add(min(out.size))
        if len(out.boxes):
            assert out.boxes[0].tolist() == pytest.approx(white_box(out.image), abs=2.0), seed
            assert (out.boxes[:, 2:] > out.boxes[:, :2]).all()
            assert out.boxes[0, 2] <= out.size[1] and out.boxes[0, 3] <= out.size[0]
    # Crops of a wide aspect may be held below a scale by the longest side.
    assert {96, 128, 150} <= sides


def test_both_branches_and_the_flip_are_taken_about_half_the_time():
    whole = sample(boxes=((0, 0, 160, 120), (0, 0, 40, 40)))
    # Square crops, so that their size tells the branches apart.
    outs = [
        policy(scales=(120,), crop_sides=(90, 90))(whole, np.random.default_rng(seed)) for seed in range(300)
    ]
    resize_only = [o for o in outs if o.size == (120, 160)]
    assert 110 < len(resize_only) < 190
    flips = sum(o.boxes[1, 0].item() > 0 for o in resize_only)
    assert 0.35 < flips / len(resize_only) < 0.65


def test_every_crop_is_within_its_sides():
    # The last resize keeps the crop's aspect; its sides after the first resize are 60..90.
    out = [
        policy(scales=(100,), crop_resize=(100,), crop_sides=(60, 90))(sample(), np.random.default_rng(s))
        for s in range(200)
    ]
    aspects = [w / h for h, w in (o.size for o in out) if (h, w) != (100, 133)]
    assert min(aspects) >= 60 / 90 - 0.02 and max(aspects) <= 90 / 60 + 0.02
    assert len({round(a, 2) for a in aspects}) > 15


def test_a_crop_larger_than_the_image_takes_all_of_it():
    out = policy(crop_resize=(20,), crop_sides=(384, 600))(sample(), np.random.default_rng(1))
    assert len(out.boxes) == 1


def test_same_generator_same_result():
    first, second = (policy(color_jitter=0.3)(sample(), np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.image, second.image) and torch.equal(first.boxes, second.boxes)


def test_the_input_is_not_changed():
    given = sample()
    image, boxes = given.image.clone(), given.boxes.clone()
    for seed in range(4):
        policy(color_jitter=0.3)(given, np.random.default_rng(seed))
    assert torch.equal(given.image, image) and torch.equal(given.boxes, boxes)


def test_a_seed_means_what_it_always_meant():
    """Runs are repeatable over versions: the order in which numbers are drawn is part of the policy."""
    first, second = (
        policy(color_jitter=0.25).make_params((120, 160), np.random.default_rng(seed)) for seed in (2, 3)
    )
    assert first == AugmentParams((150, 200), True, pytest.approx((0.8992456, 1.1571129, 0.7959580)))
    assert second == AugmentParams(
        (96, 109), True, pytest.approx((0.8684053, 1.1506372, 1.0410811)), (100, 133), (8, 10, 83, 95)
    )


def test_a_image_decoded_at_half_its_size_has_the_same_geometry():
    big = sample(240, 320, boxes=((60, 40, 140, 100), (0, 0, 80, 80)))
    half = Sample.from_arrays(big.image[:, ::2, ::2], big.boxes, big.labels, size=(240, 320))
    for seed in range(30):
        params = policy(scales=(60, 96)).make_params((240, 320), np.random.default_rng(seed))
        whole, drafted = params(big), params(half)
        assert whole.size == drafted.size == tuple(drafted.image.shape[-2:])
        assert torch.equal(whole.boxes, drafted.boxes) and torch.equal(whole.labels, drafted.labels)
        assert (whole.image.int() - drafted.image.int()).abs().float().mean() < 4


def test_fixed_size():
    rng = np.random.default_rng(0)
    assert policy(fixed_size=True)(sample(), rng).size == (150, 220)
    out = EvalPolicy(100, 200, fixed_size=True)(sample(), rng)
    assert out.size == (100, 200)
    assert out.boxes[0].tolist() == pytest.approx([37.5, 16.67, 87.5, 41.67], abs=0.01)


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        # (height, width), rounded as DETR rounds
        ((480, 640), 800, 1333, (800, 1066)),
        ((640, 480), 800, 1333, (1066, 800)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((375, 1242), 800, 1333, (402, 1331)),
        ((500, 500), 480, 1333, (480, 480)),
        ((800, 1000), 800, 1333, (800, 1000)),
        # So thin that rounding the short side would break the limit of the long one.
        ((2, 3000), 800, 1333, (1, 1333)),
        ((1, 9000), 800, 1333, (1, 1333)),
    ],
)
def test_sizes_are_detrs(size, short, longest, expected):
    assert short_side_size(size, short, longest) == expected


def test_evaluation_resizes_the_short_side():
    out = EvalPolicy(240, 1333)(sample(), np.random.default_rng(0))
    assert out.size == (240, 320) and out.boxes[0].tolist() == [60, 40, 140, 100]


def test_geometry_of_the_parts():
    assert flipped(sample()).boxes.tolist() == [[90, 20, 130, 50]]
    assert resized(sample(), (60, 160)).boxes.tolist() == [[30, 10, 70, 25]]
    assert cropped(sample(), 30, 40, 60, 20).boxes.tolist() == [[0, 0, 20, 20]]
    gone = cropped(sample(), 60, 80, 60, 80)
    assert gone.boxes.shape == (0, 4) and gone.labels.shape == (0,)


def test_sanitising_clips_and_drops_with_the_labels():
    dirty = sample(
        boxes=(RECTANGLE, (-20, -20, 10, 10), (200, 10, 220, 30), (50, 50, 50, 90), (150, 0, 170, 20))
    )
    clean = dirty.sanitised()
    assert clean.labels.tolist() == [0, 1, 4]
    assert clean.boxes.tolist() == [[30, 20, 70, 50], [0, 0, 10, 10], [150, 0, 160, 20]]


def test_sanitising_is_torchvisions():
    random = np.random.default_rng(0)
    corners = random.uniform(-60, 220, (500, 4)).astype(np.float32)
    corners[:200, 2:] = corners[:200, :2] + random.choice([-1, 0, 0.005, 0.01, 0.5, 1, 2, 90], (200, 2))
    corners[300] = np.nan
    dirty = Sample.from_arrays(torch.zeros(3, 120, 160), corners, torch.arange(500))
    boxes, kept = F.sanitize_bounding_boxes(F.clamp_bounding_boxes(dirty.boxes), min_size=MIN_SIDE)
    clean = dirty.sanitised()
    assert torch.equal(clean.boxes, boxes) and torch.equal(clean.labels, torch.arange(500)[kept])
    assert 50 < len(boxes) < 300 and clean.size == (120, 160)


def test_example_has_relative_boxes():
    image, target = to_model_input(sample(), 17, (999, 888), image_level=True)
    assert image.dtype == torch.uint8 and type(image) is torch.Tensor
    assert image[:, 0, 0].tolist() == [60, 60, 60]
    assert target.boxes_cxcywh.tolist() == [pytest.approx([50 / 160, 35 / 120, 40 / 160, 30 / 120])]
    assert type(target.boxes_cxcywh) is torch.Tensor
    assert (target.image_id, target.size, target.original_size) == (17, (120, 160), (999, 888))
    assert target.image_level
