"""What the parts hand to each other: images, targets, detections.

B images in a batch, N boxes in an image. Sizes are (height, width). All are frozen: nothing is
written into them after they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from util.pixels import normalised


class _Movable:
    """Moves every tensor field at once. `pin_memory` is the name that torch's DataLoader looks for."""

    def _map(self, function):
        moved = {f.name: function(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)

    def to(self, device: torch.device | str, non_blocking: bool = False):
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        return self._map(lambda t: t.pin_memory())


@dataclass(frozen=True)
class PaddedImages(_Movable):
    """Images of different sizes in one tensor, each at the top left, padded with 0.

    tensor: (B, 3, H, W). From the loader uint8 RGB, four times smaller to copy; the model takes what
        `normalised` makes of it.
    mask:   (B, H, W) bool, True where padded.
    sizes:  (height, width) of each image without its padding.
    """

    tensor: Tensor
    mask: Tensor
    sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def from_list(cls, images: Sequence[Tensor], size_divisor: int = 1) -> PaddedImages:
        """Pads [(3, h, w), ...] to the largest height and width, rounded up to `size_divisor`.

        The batch keeps the images' order in memory: decoded ones have their channels interleaved.
        """
        sizes = tuple((p.shape[-2], p.shape[-1]) for p in images)
        height, width = (-(-max(s[i] for s in sizes) // size_divisor) * size_divisor for i in (0, 1))
        order = torch.channels_last if images[0].stride(0) == 1 else torch.contiguous_format
        shape, like = (len(images), 3, height, width), images[0]
        tensor = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order).zero_()
        mask = torch.ones((len(images), height, width), dtype=torch.bool, device=tensor.device)
        for i, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
            tensor[i, :, :h, :w] = image
            mask[i, :h, :w] = False
        return cls(tensor, mask, sizes)

    def normalised(self) -> PaddedImages:
        """Float32 with ImageNet's mean 0 and standard deviation 1, padding 0; itself where it is float."""
        if self.tensor.is_floating_point():
            return self
        return replace(self, tensor=normalised(self.tensor, self.sizes))


@dataclass(frozen=True)
class Target(_Movable):
    """What is known of one image.

    boxes_cxcywh: (N, 4) float, 0..1 of the image without its padding.
    labels:       (N,) int64, contiguous class index 0..C-1.
    image_id:     the dataset's id.
    size:         (height, width) of the image as the model sees it.
    original_size: (height, width) of the file.
    image_level:  True where the label belongs to the whole image and the box is a coarse location.
    """

    boxes_cxcywh: Tensor
    labels: Tensor
    image_id: int
    size: tuple[int, int]
    original_size: tuple[int, int]
    image_level: bool = False

    def __len__(self) -> int:
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Detections(_Movable):
    """What was found in one image, best first.

    scores: (K,) float 0..1.  labels: (K,) int64 class index.  boxes_xyxy: (K, 4) float, pixels of the file.
    """

    scores: Tensor
    labels: Tensor
    boxes_xyxy: Tensor

    def __len__(self) -> int:
        return int(self.scores.shape[0])


def box_batch_indices(counts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Image of each box of a batch, and its number in there: box counts [2, 1] -> 0 0 1 and 0 1 0.

    Filled on the device: a tensor made of a list would be a copy that waits for the GPU.
    """
    image = [torch.full((count,), i, device=device) for i, count in enumerate(counts)]
    return torch.cat(image), torch.cat([torch.arange(count, device=device) for count in counts])
