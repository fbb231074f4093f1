"""DETR's multi-scale policy on torchvision's transforms v2.

A policy draws all its random numbers (AugmentParams) from an image's size alone and applies them later, so
the size of the first resize is known before the image is decoded. Random numbers come from the generator
that is passed in: torch's global one depends on workers and order.
Boxes are tv_tensors and follow the pixels; at the end they are always clipped and sanitised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from datasets.augment.photometric import Photometric
from datasets.images.preprocess import EvalSize, short_side_size
from datasets.sample import Sample

# Of the resize before a crop: no limit for any photograph, but 750 million would come from 1x3000.
MOST_PIXELS = 2**24


@dataclass(frozen=True)
class AugmentParams:
    """What happens to one image. Sizes are (height, width) in pixels.

    size:   of the result.
    flip:   mirrors left and right, first of all.
    jitter: factors of brightness, contrast and saturation; () for none.
    resize_before_crop, crop: a resize, and the window (top, left, height, width) of it to keep, before the
        resize to `size`; None for neither.
    photometric, seed: torchvision's transforms, last of all, and the seed of their random numbers.
    """

    size: tuple[int, int]
    flip: bool = False
    jitter: tuple[float, ...] = ()
    resize_before_crop: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    photometric: Photometric | None = None
    seed: int = 0

    @property
    def decode_size(self) -> tuple[int, int]:
        """The size of the first resize: decoding need not give more."""
        return self.resize_before_crop or self.size

    def __call__(self, sample: Sample) -> Sample:
        """A new sample; its boxes lie inside the image and are not empty.

        Raises ImageError where the photometric transforms cannot take the image.
        """
        if self.flip:
            sample = flipped(sample)
        if self.jitter:
            sample = _jittered(sample, self.jitter)
        if self.crop is not None:
            sample = cropped(resized(sample, self.decode_size), *self.crop)
        sample = resized(sample, self.size)
        if self.photometric is not None:
            image = tv_tensors.Image(self.photometric(sample.image.as_subclass(Tensor), self.seed))
            sample = replace(sample, image=image)
        return sample.sanitised()


class Policy(ABC):
    """Chooses the augmentation of each image."""

    @abstractmethod
    def make_params(self, size: tuple[int, int], rng: np.random.Generator) -> AugmentParams:
        """The parameters for an image of (height, width)."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A new sample; its boxes lie inside the image and are not empty."""
        return self.make_params(sample.size, rng)(sample)


@dataclass(frozen=True)
class TrainPolicy(Policy):
    """Horizontal flip, then resize or resize-crop-resize with equal probability (Carion et al., 2020).

    scales:       short sides in pixels, one is drawn (`data_aug_scales`).
    max_size:     longest side afterwards (`data_aug_max_size`).
    crop_resize:  short sides of the resize before the crop (`data_aug_scales2_resize`).
    crop_sides:   smallest and largest side of the crop (`data_aug_scales2_crop`).
    fixed_size:   flip, then resize to max(scales) high and max_size wide (`--fix_size`).
    color_jitter: strength of brightness, contrast and saturation jitter, 0 for none.
    photometric:  torchvision's transforms, after all others.
    """

    scales: tuple[int, ...]
    max_size: int
    crop_resize: tuple[int, ...]
    crop_sides: tuple[int, int]
    fixed_size: bool = False
    color_jitter: float = 0.0
    photometric: Photometric | None = None

    def make_params(self, size: tuple[int, int], rng: np.random.Generator) -> AugmentParams:
        """The parameters for an image of (height, width)."""
        flip = rng.random() < 0.5
        jitter: tuple[float, ...] = ()
        if strength := self.color_jitter:
            jitter = tuple(float(rng.uniform(max(0.0, 1 - strength), 1 + strength)) for _ in range(3))
        resize_before_crop = crop = None
        if not self.fixed_size and rng.random() < 0.5:
            resize_before_crop = _within(short_side_size(size, int(rng.choice(self.crop_resize))))
            crop = _random_window(resize_before_crop, self.crop_sides, rng)
            size = crop[2:]
        if self.fixed_size:
            size = max(self.scales), self.max_size
        else:
            size = short_side_size(size, int(rng.choice(self.scales)), self.max_size)
        # From a generator of its own: the numbers that come after, a mosaic's among them, stay the same.
        seed = int(rng.spawn(1)[0].integers(2**63)) if self.photometric is not None else 0
        return AugmentParams(
            size, flip, jitter, resize_before_crop, crop, photometric=self.photometric, seed=seed
        )


class EvalPolicy(EvalSize, Policy):
    """The resize of evaluation."""

    def make_params(self, size: tuple[int, int], rng: np.random.Generator | None = None) -> AugmentParams:
        """Nothing is random; `rng` is part of the interface."""
        return AugmentParams(self.target(size))


def resized(sample: Sample, size: tuple[int, int]) -> Sample:
    """Bilinear with antialiasing, to exactly (height, width)."""
    if size == sample.size == tuple(sample.image.shape[-2:]):
        return sample
    image = F.resize(_interleaved(sample.image), list(size), antialias=True)
    return replace(sample, image=image, boxes=F.resize(sample.boxes, list(size)))


def flipped(sample: Sample) -> Sample:
    """Mirrored left to right."""
    return replace(sample, image=F.horizontal_flip(sample.image), boxes=F.horizontal_flip(sample.boxes))


def cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """A window inside the image; boxes outside it are dropped."""
    window = (top, left, height, width)
    return replace(
        sample, image=F.crop(sample.image, *window), boxes=F.crop(sample.boxes, *window)
    ).sanitised()


def _within(size: tuple[int, int]) -> tuple[int, int]:
    """The same, shrunk where an image is so long that it would have more than MOST_PIXELS."""
    height, width = size
    scale = (MOST_PIXELS / (height * width)) ** 0.5
    return size if scale >= 1 else (max(1, int(height * scale)), max(1, int(width * scale)))


def _random_window(
    size: tuple[int, int], sides: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width); each side is drawn from `sides` (inclusive), limited by `size`."""
    height, width = (int(rng.integers(min(sides[0], side), min(sides[1], side) + 1)) for side in size)
    return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width


def _jittered(sample: Sample, factors: tuple[float, ...]) -> Sample:
    """Brightness, contrast and saturation changed by their factors."""
    image = sample.image
    for adjust, factor in zip(
        (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation), factors, strict=True
    ):
        image = adjust(image, factor)
    return replace(sample, image=image)


def _interleaved(image: Tensor) -> Tensor:
    """The same image in memory order H, W, 3, which torch resizes faster, to the same values."""
    return tv_tensors.Image(image.permute(1, 2, 0).contiguous().permute(2, 0, 1))


def whole_image_box(size: tuple[int, int]) -> torch.Tensor:
    """(1, 4) XYXY box of a whole image of (height, width)."""
    height, width = size
    return torch.tensor([[0.0, 0.0, width, height]])
