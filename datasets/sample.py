"""What travels through the data pipeline: the index that a sampler yields, and an image with its boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from util.boxes import box_xyxy_to_cxcywh
from util.structures import Target

# After clipping, boxes with a side below this (pixels) or a smaller area are dropped.
MIN_SIDE = 0.01
MIN_AREA = 1.0


class SampleIndex(NamedTuple):
    """One element of a sampler's order: which image, and when in the run.

    (stream, epoch, position) is unique in the order over all ranks, so random numbers made from it depend
    neither on the number of ranks nor on the number of workers.

    image_index: of the dataset.  epoch: pass of the sampler.  position: place in that pass.
    stream:      which dataset of a MultiDataset.
    """

    image_index: int
    epoch: int = 0
    position: int = 0
    stream: int = 0

    def generator(self, seed: int) -> np.random.Generator:
        """The random numbers of this sample, the same on every machine."""
        return np.random.default_rng((seed, self.stream, self.epoch, self.position))


@dataclass(frozen=True)
class Sample:
    """An image and its boxes.

    image:  (3, H, W) uint8 RGB. Until the first resize it may be smaller than `size` (see `EncodedImage`).
    boxes:  (N, 4) float32 tv_tensor, XYXY pixels of an image of `size`.
    labels: (N,) int64 class index.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that the boxes refer to."""
        return self.boxes.canvas_size

    @classmethod
    def from_arrays(
        cls,
        image: Tensor | np.ndarray,
        boxes_xyxy: Tensor | np.ndarray,
        labels: Tensor | np.ndarray,
        size: tuple[int, int] | None = None,
    ) -> Sample:
        """From plain arrays or tensors; boxes may reach outside the image, see `sanitised`.

        image: (3, H, W) uint8 tensor, or (H, W, 3) uint8 array as decoded, whose memory is shared.
        size:  (height, width) that the boxes refer to, where `image` was decoded at a smaller scale.
        """
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(image).permute(2, 0, 1)
        boxes = tv_tensors.BoundingBoxes(
            torch.as_tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=size or tuple(image.shape[-2:]),
        )
        return cls(tv_tensors.Image(image), boxes, torch.as_tensor(labels, dtype=torch.int64))

    def sanitised(self) -> Sample:
        """Boxes clipped to the image; boxes that become empty are dropped with their labels."""
        # Equal to torchvision's clamp_bounding_boxes and sanitize_bounding_boxes, with a tenth of the calls.
        height, width = self.size
        boxes = self.boxes.as_subclass(Tensor).clamp(min=0)
        boxes = boxes.minimum(torch.tensor([width, height, width, height], dtype=boxes.dtype))
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = (sides >= MIN_SIDE).all(1) & (sides.prod(1) >= MIN_AREA)
        return replace(self, boxes=tv_tensors.wrap(boxes[keep], like=self.boxes), labels=self.labels[keep])


def to_model_input(
    sample: Sample,
    image_id: int,
    original_size: tuple[int, int],
    image_level: bool = False,
    files: tuple[str, ...] = (),
    judged: Tensor | None = None,
) -> tuple[Tensor, Target]:
    """The image (3, H, W) uint8 and its Target, boxes sanitised and relative to the image."""
    sample = sample.sanitised()
    height, width = sample.size
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = box_xyxy_to_cxcywh(sample.boxes.as_subclass(Tensor) / scale)
    target = Target(
        boxes_cxcywh=boxes,
        labels=sample.labels,
        image_id=int(image_id),
        size=(height, width),
        original_size=original_size,
        image_level=image_level,
        files=files,
        judged=judged,
    )
    return sample.image.as_subclass(Tensor), target
