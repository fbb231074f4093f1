"""DETR's multi-scale policy on torchvision's transforms v2.

All random numbers come from the generator that is passed in; the functional API is used because its classes
would draw from torch's global state, which depends on workers and order.
Boxes are tv_tensors and follow the pixels; they are clipped and sanitised at the end, always.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from datasets.samples import Sample


@dataclass(frozen=True)
class TrainPolicy:
    """Horizontal flip, then one of two with equal chance (Carion et al., 2020): resize, or
    resize-crop-resize.

    scales:        short sides in pixels, one is drawn (`data_aug_scales`).
    max_size:      longest side afterwards (`data_aug_max_size`).
    crop_resize:   short sides of the resize before the crop (`data_aug_scales2_resize`).
    crop_sides:    smallest and largest side of the crop (`data_aug_scales2_crop`).
    fixed_size:    flip, then every picture is max_size wide and max(scales) high (`--fix_size`).
    color_jitter:  strength of brightness, contrast and saturation changes, 0 for none.
    """

    scales: tuple[int, ...]
    max_size: int
    crop_resize: tuple[int, ...]
    crop_sides: tuple[int, int]
    fixed_size: bool = False
    color_jitter: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A new sample; boxes are inside the picture and not empty."""
        if rng.random() < 0.5:
            sample = flipped(sample)
        if self.color_jitter:
            sample = _jittered(sample, self.color_jitter, rng)
        if self.fixed_size:
            return resized(sample, (max(self.scales), self.max_size)).sanitised()
        if rng.random() < 0.5:
            sample = resized(sample, short_side_size(sample.size, int(rng.choice(self.crop_resize))))
            sample = _randomly_cropped(sample, self.crop_sides, rng)
        size = short_side_size(sample.size, int(rng.choice(self.scales)), self.max_size)
        return resized(sample, size).sanitised()


@dataclass(frozen=True)
class EvalPolicy:
    """Resize so that the short side is `short_side`, or the long one `max_size` where that is smaller.

    fixed_size: every picture becomes max_size wide and short_side high instead.
    """

    short_side: int
    max_size: int
    fixed_size: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A new sample. Nothing is random; `rng` is there because every policy has it."""
        size = (self.short_side, self.max_size)
        if not self.fixed_size:
            size = short_side_size(sample.size, *size)
        return resized(sample, size).sanitised()


def short_side_size(size: tuple[int, int], short: int, longest: int | None = None) -> tuple[int, int]:
    """(height, width) -> (height, width) with short side `short` and the same aspect, rounded as DETR does.

    longest: the short side is made smaller where the long one would exceed this.
    """
    height, width = size
    low, high = float(min(size)), float(max(size))
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
    if height < width:
        return short, max(1, int(short * width / height))
    return max(1, int(short * height / width)), short


def resized(sample: Sample, size: tuple[int, int]) -> Sample:
    """Bilinear with antialiasing, to exactly (height, width)."""
    if size == sample.size:
        return sample
    return replace(
        sample,
        image=F.resize(sample.image, list(size), antialias=True),
        boxes=F.resize(sample.boxes, list(size)),
    )


def flipped(sample: Sample) -> Sample:
    """Left and right exchanged."""
    return replace(sample, image=F.horizontal_flip(sample.image), boxes=F.horizontal_flip(sample.boxes))


def cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window inside the picture; boxes without a part in it are left out."""
    window = (top, left, height, width)
    return replace(
        sample, image=F.crop(sample.image, *window), boxes=F.crop(sample.boxes, *window)
    ).sanitised()


def _randomly_cropped(sample: Sample, sides: tuple[int, int], rng: np.random.Generator) -> Sample:
    """A window whose sides are drawn from `sides` (inclusive) independently, no larger than the picture."""
    available = sample.size
    height, width = (int(rng.integers(min(sides[0], side), min(sides[1], side) + 1)) for side in available)
    top = int(rng.integers(available[0] - height + 1))
    left = int(rng.integers(available[1] - width + 1))
    return cropped(sample, top, left, height, width)


def _jittered(sample: Sample, strength: float, rng: np.random.Generator) -> Sample:
    """Brightness, contrast and saturation, each by a factor from 1 - strength to 1 + strength."""
    image = sample.image
    for adjust in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
        image = adjust(image, float(rng.uniform(max(0.0, 1 - strength), 1 + strength)))
    return replace(sample, image=image)


def whole_picture_box(image: torch.Tensor) -> torch.Tensor:
    """(1, 4) XYXY: the whole picture as one coarse box."""
    height, width = image.shape[-2:]
    return torch.tensor([[0.0, 0.0, width, height]])
