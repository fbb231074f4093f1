"""torchvision's transforms by name: what is refused, and whose random numbers they draw."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from datasets.augment.photometric import PHOTOMETRIC, Photometric
from tests.datasets.augment.test_policy import policy, sample
from util.errors import UserError

ARGUMENTS = {
    "GaussianBlur": "5",
    "RandomAdjustSharpness": "2",
    "RandomPosterize": "2",
    "RandomSolarize": "100",
    "Grayscale": "3",
    "RandomGrayscale": "1.0",
    "JPEG": "[20, 50]",
}
SHADES = torch.arange(3 * 64 * 80, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(3, 64, 80)


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_every_transform_runs_and_is_repeated_by_its_seed(name):
    if not hasattr(v2, name):
        pytest.skip(f"this torchvision has no {name}")
    transform = Photometric([f"{name}({ARGUMENTS.get(name, '')})"])
    first, again = (transform(SHADES.clone(), 3) for _ in range(2))
    assert torch.equal(first, again) and first.shape == SHADES.shape and first.dtype == torch.uint8


def test_seeds_differ_and_the_global_generator_does_not_notice():
    transform = Photometric(["RandomApply([ColorJitter(brightness=0.9)], p=0.5)"])
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    means = {round(transform(SHADES, seed).float().mean().item(), 3) for seed in range(20)}
    assert torch.equal(torch.rand(3), expected)
    assert 5 < len(means) < 20, "about half of them are left as they are"


def test_pixels_change_and_geometry_does_not():
    plain, blurred = policy(), policy(photometric=Photometric(["RandomInvert(p=1.0)"]))
    for seed in range(8):
        before, after = (p(sample(), np.random.default_rng(seed)) for p in (plain, blurred))
        assert torch.equal(before.boxes, after.boxes) and torch.equal(255 - before.image, after.image)
    fixed = policy(photometric=Photometric(["ColorJitter(hue=0.5)"]), fixed_size=True)
    assert fixed.make_params((9, 9), np.random.default_rng(0)).seed != 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("GausianBlur(3)", r"unknown transform 'GausianBlur'. Did you mean 'GaussianBlur'\?"),
        ("RandomHorizontalFlip(0.5)", "RandomHorizontalFlip is not photometric: boxes would not follow it"),
        ("RandomApply([RandomRotation(3)])", "RandomRotation is not photometric"),
        ("GaussianBlur(4)", "[Kk]ernel size"),
        ("GaussianBlur(size=3)", "unexpected keyword argument 'size'"),
        ("GaussianBlur", "write it as a call with plain arguments, like 'GaussianBlur"),
        ("GaussianBlur(3", "write it as a call"),
        ("GaussianBlur(open('x'))", "unknown transform 'open'"),
        ("Grayscale(1)", r"an image does not stay \(3, H, W\) uint8"),
        ("5", "write it as a call"),
    ],
)
def test_what_is_wrong_is_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        Photometric(["RandomInvert()", call])
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"photometric: {call!r}: ")
