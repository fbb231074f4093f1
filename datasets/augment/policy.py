"""DETR's multi-scale policy on torchvision's transforms v2.

A policy draws AugmentParams, all its random numbers, from an image's size alone; they are applied later. So
the size that an image will be resized to is known before it is decoded. Random numbers come from the
generator that is passed in; the functional API is used because its classes would draw from torch's global
state, which depends on workers and order.
Boxes are tv_tensors and follow the pixels; they are clipped and sanitised at the end, always.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from datasets.sample import Sample


@dataclass(frozen=True)
class AugmentParams:
    """What happens to one image, in this order. Sizes are (height, width) in pixels.

    flip:   left and right are exchanged.
    jitter: factors of brightness, contrast and saturation; () for none.
    resize_before_crop, crop: a first resize, and the window (top, left, height, width) of it that is kept;
        None for neither.
    size:   of the result.
    """

    size: tuple[int, int]
    flip: bool = False
    jitter: tuple[float, ...] = ()
    resize_before_crop: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None

    @property
    def decode_size(self) -> tuple[int, int]:
        """What the image is resized to first: a decoder need not give more."""
        return self.resize_before_crop or self.size

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; boxes are inside the image and not empty."""
        if self.flip:
            sample = flipped(sample)
        if self.jitter:
            sample = _jittered(sample, self.jitter)
        if self.crop is not None:
            sample = cropped(resized(sample, self.resize_before_crop), *self.crop)
        return resized(sample, self.size).sanitised()


class Policy(ABC):
    """Decides what happens to images."""

    @abstractmethod
    def plan(self, size: tuple[int, int], rng: np.random.Generator) -> AugmentParams:
        """What happens to an image of (height, width)."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A new sample; boxes are inside the image and not empty."""
        return self.plan(sample.size, rng)(sample)


@dataclass(frozen=True)
class TrainPolicy(Policy):
    """Horizontal flip, then one of two with equal chance (Carion et al., 2020): resize, or
    resize-crop-resize.

    scales:        short sides in pixels, one is drawn (`data_aug_scales`).
    max_size:      longest side afterwards (`data_aug_max_size`).
    crop_resize:   short sides of the resize before the crop (`data_aug_scales2_resize`).
    crop_sides:    smallest and largest side of the crop (`data_aug_scales2_crop`).
    fixed_size:    flip, then every image is max_size wide and max(scales) high (`--fix_size`).
    color_jitter:  strength of brightness, contrast and saturation changes, 0 for none.
    """

    scales: tuple[int, ...]
    max_size: int
    crop_resize: tuple[int, ...]
    crop_sides: tuple[int, int]
    fixed_size: bool = False
    color_jitter: float = 0.0

    def plan(self, size: tuple[int, int], rng: np.random.Generator) -> AugmentParams:
        """What happens to an image of (height, width)."""
        flip = rng.random() < 0.5
        jitter = ()
        if strength := self.color_jitter:
            jitter = tuple(float(rng.uniform(max(0.0, 1 - strength), 1 + strength)) for _ in range(3))
        if self.fixed_size:
            return AugmentParams((max(self.scales), self.max_size), flip, jitter)
        resize_before_crop = crop = None
        if rng.random() < 0.5:
            resize_before_crop = short_side_size(size, int(rng.choice(self.crop_resize)))
            crop = _random_window(resize_before_crop, self.crop_sides, rng)
            size = crop[2:]
        size = short_side_size(size, int(rng.choice(self.scales)), self.max_size)
        return AugmentParams(size, flip, jitter, resize_before_crop, crop)


@dataclass(frozen=True)
class EvalPolicy(Policy):
    """Resize so that the short side is `short_side`, or the long one `max_size` where that is smaller.

    fixed_size: every image becomes max_size wide and short_side high instead.
    """

    short_side: int
    max_size: int
    fixed_size: bool = False

    def plan(self, size: tuple[int, int], rng: np.random.Generator | None = None) -> AugmentParams:
        """Nothing is random; `rng` is there because every policy has it."""
        target = (self.short_side, self.max_size)
        return AugmentParams(target if self.fixed_size else short_side_size(size, *target))


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
    if size == sample.size == tuple(sample.image.shape[-2:]):
        return sample
    image = F.resize(_interleaved(sample.image), list(size), antialias=True)
    return replace(sample, image=image, boxes=F.resize(sample.boxes, list(size)))


def flipped(sample: Sample) -> Sample:
    """Left and right exchanged."""
    return replace(sample, image=F.horizontal_flip(sample.image), boxes=F.horizontal_flip(sample.boxes))


def cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window inside the image; boxes without a part in it are left out."""
    window = (top, left, height, width)
    return replace(
        sample, image=F.crop(sample.image, *window), boxes=F.crop(sample.boxes, *window)
    ).sanitised()


def _random_window(
    size: tuple[int, int], sides: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width); sides are drawn from `sides` (inclusive) independently, no larger than
    `size`."""
    height, width = (int(rng.integers(min(sides[0], side), min(sides[1], side) + 1)) for side in size)
    return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width


def _jittered(sample: Sample, factors: tuple[float, ...]) -> Sample:
    """Brightness, contrast and saturation, each by its factor."""
    image = sample.image
    for adjust, factor in zip(
        (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation), factors, strict=True
    ):
        image = adjust(image, factor)
    return replace(sample, image=image)


def _interleaved(image: Tensor) -> Tensor:
    """The same image in the memory order H, W, 3, which torch resizes faster, to the same values."""
    return tv_tensors.Image(image.permute(1, 2, 0).contiguous().permute(2, 0, 1))


def whole_image_box(size: tuple[int, int]) -> torch.Tensor:
    """(1, 4) XYXY: the whole image of (height, width) as one coarse box."""
    height, width = size
    return torch.tensor([[0.0, 0.0, width, height]])
