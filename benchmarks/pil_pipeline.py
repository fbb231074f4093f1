"""The conventional pipeline that the loader is compared with: images are PIL's until they become tensors.

It follows the same parameters (the same random numbers), one operation after the other as most detection code
does: decode, flip, resize, crop, resize, to tensor, normalise, pad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from datasets.augment.mosaic import fitting_size
from datasets.augment.policy import AugmentParams
from datasets.detection import DetectionDataset
from datasets.image_level import ImageLevel
from datasets.sample import MIN_SIDE, SampleIndex
from util.pixels import IMAGENET_MEAN, IMAGENET_STD


@dataclass
class Labelled:
    """A PIL image, its (N, 4) XYXY boxes in pixels, and (N,) labels."""

    image: Image.Image
    boxes: Tensor
    labels: Tensor


def opened(path: Path) -> Image.Image:
    """Decoded RGB."""
    with Image.open(path) as file:
        return file.convert("RGB")


def apply(params: AugmentParams, sample: Labelled) -> Labelled:
    """What `params` say, by PIL."""
    if params.flip:
        width = sample.image.width
        boxes = sample.boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor(
            [width, 0, width, 0]
        )
        sample = Labelled(sample.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), boxes, sample.labels)
    if params.crop is not None:
        sample = _resized(sample, params.resize_before_crop)
        top, left, height, width = params.crop
        image = sample.image.crop((left, top, left + width, top + height))
        boxes = sample.boxes - torch.tensor([left, top, left, top])
        sample = _clipped(Labelled(image, boxes, sample.labels))
    return _clipped(_resized(sample, params.size))


def _resized(sample: Labelled, size: tuple[int, int]) -> Labelled:
    height, width = size
    scale = torch.tensor([width / sample.image.width, height / sample.image.height]).repeat(2)
    image = sample.image.resize((width, height), Image.Resampling.BILINEAR)
    return Labelled(image, sample.boxes * scale, sample.labels)


def _clipped(sample: Labelled) -> Labelled:
    limits = torch.tensor([sample.image.width, sample.image.height]).repeat(2)
    boxes = sample.boxes.clamp(min=0).minimum(limits)
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1)
    return Labelled(sample.image, boxes[keep], sample.labels[keep])


def detection_sample(data: DetectionDataset, draw: SampleIndex) -> Labelled:
    """What `data[draw]` reads and augments, by PIL."""
    rng = draw.generator(data.seed)
    rows = data.boxes.rows(draw.image_index)
    image = opened(data.images.root / data.annotations.file_names[draw.image_index])
    boxes, labels = (torch.from_numpy(v[rows].copy()) for v in (data.boxes.boxes_xyxy, data.boxes.labels))
    params = data.policy.make_params((image.height, image.width), rng)
    return apply(params, Labelled(image, boxes, labels))


def mosaic_sample(data: ImageLevel, draw: SampleIndex) -> Labelled:
    """What `data[draw]` reads, augments and lays on a canvas, by PIL."""
    rng = draw.generator(data.seed)
    tiles = [_image_level(data, draw.image_index, rng)]
    tiles += [_image_level(data, int(i), rng) for i in rng.integers(len(data), size=3)]
    mosaic = data.mosaic
    half = mosaic.size // 2
    x, y = (round(float(rng.uniform(*mosaic.centre)) * half) for _ in range(2))
    canvas = Image.new("RGB", (mosaic.size, mosaic.size), (mosaic.fill,) * 3)
    boxes, labels = [], []
    for corner, tile in enumerate(tiles):
        tile = _resized(tile, fitting_size((tile.image.height, tile.image.width), half))
        left = x if corner % 2 else x - tile.image.width
        top = y if corner // 2 else y - tile.image.height
        canvas.paste(tile.image, (left, top))
        boxes.append(tile.boxes + torch.tensor([left, top, left, top]))
        labels.append(tile.labels)
    return _clipped(Labelled(canvas, torch.cat(boxes), torch.cat(labels)))


def _image_level(data: ImageLevel, index: int, rng: np.random.Generator) -> Labelled:
    image = opened(data.images.root / data.annotations.file_names[data.used[index]])
    box = torch.tensor([[0.0, 0.0, image.width, image.height]])
    params = data.policy.make_params((image.height, image.width), rng)
    return apply(params, Labelled(image, box, torch.tensor([data.labels[index]])))


def batch(samples: Sequence[Labelled]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """To tensors, normalised and padded: (B, 3, H, W), its mask, boxes cxcywh in 0..1."""
    tensors = [F.normalize(F.to_tensor(s.image), IMAGENET_MEAN, IMAGENET_STD) for s in samples]
    height, width = (max(t.shape[i] for t in tensors) for i in (1, 2))
    padded = torch.zeros(len(tensors), 3, height, width)
    mask = torch.ones(len(tensors), height, width, dtype=torch.bool)
    boxes = []
    for i, (tensor, sample) in enumerate(zip(tensors, samples, strict=True)):
        h, w = tensor.shape[1:]
        padded[i, :, :h, :w].copy_(tensor)
        mask[i, :h, :w] = False
        low, high = sample.boxes[:, :2], sample.boxes[:, 2:]
        boxes.append(torch.cat(((low + high) / 2, high - low), 1) / torch.tensor([w, h, w, h]))
    return padded, mask, boxes
