"""What the parts hand to each other: images, targets, detections.

B images in a batch, N boxes in an image. Sizes are (height, width). All are frozen: nothing is
written into them after they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from util.pixels import normalise, padded_size

_T = TypeVar("_T", bound="_Movable")


class _Movable:
    """Moves every tensor field at once. `pin_memory` is the name that torch's DataLoader looks for."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def _map(self: _T, function: Callable[[Tensor], Tensor]) -> _T:
        moved = {f.name: function(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)

    def to(self: _T, device: torch.device | str, non_blocking: bool = False) -> _T:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self: _T) -> _T:
        return self._map(lambda t: t.pin_memory())

    def share_memory(self: _T) -> _T:
        """In memory that other processes can map. Raises RuntimeError where there is no room."""
        return self._map(lambda t: t.share_memory_())


@dataclass(frozen=True)
class PaddedImages(_Movable):
    """Images of different sizes in one tensor, each at the top left, padded with 0.

    tensor: (B, 3, H, W). From the loader uint8 RGB, four times smaller to copy; the model takes what
        `normalised` makes of it.
    mask:   (B, H, W) bool, True where padded.
    sizes:  (height, width) of each image without its padding.
    """

    tensor: Shaped[Tensor, "B 3 H W"]
    mask: Bool[Tensor, "B H W"]
    sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def from_list(cls, images: Sequence[Shaped[Tensor, "3 _ _"]], size_divisor: int = 1) -> PaddedImages:
        """Pads [(3, h, w), ...] to the largest height and width, rounded up to `size_divisor`.

        The batch keeps the images' order in memory: decoded ones have their channels interleaved.
        """
        sizes = tuple((p.shape[-2], p.shape[-1]) for p in images)
        height, width = padded_size(sizes, size_divisor)
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
        result = torch.empty(self.tensor.shape, dtype=torch.float32, device=self.tensor.device)
        return replace(self, tensor=normalise(self.tensor, self.sizes, result))


@dataclass(frozen=True)
class Target:
    """What is known of one image, as a dataset gives it.

    boxes_cxcywh: (N, 4) float, 0..1 of the image without its padding.
    labels:       (N,) int64, contiguous class index 0..C-1.
    image_id:     the dataset's id.
    size:         (height, width) of the image as the model sees it.
    original_size: (height, width) of the file.
    image_level:  True where the label belongs to the whole image and the box is a coarse location.
    files:        names of the files that it was made of, for messages: four for a mosaic.
    judged:       (C,) bool, the classes that were looked for: absence of the others is not known. None for
        all.
    """

    boxes_cxcywh: Float[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    image_id: int
    size: tuple[int, int]
    original_size: tuple[int, int]
    image_level: bool = False
    files: tuple[str, ...] = ()
    judged: Bool[Tensor, " C"] | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class Targets(_Movable):
    """What is known of a batch: the N boxes of its B images in one row, image after image.

    Made once, by the collate function. Box counts [2, 1] give image_index 0 0 1 and box_index 0 1 0.

    boxes_cxcywh: (N, 4) float, 0..1 of each image without its padding.
    labels:       (N,) int64, contiguous class index 0..C-1.
    image_index:  (N,) int64, the image 0..B-1 of each box.
    box_index:    (N,) int64, the number of each box within its image.
    counts:       boxes of each image, Python ints: shapes are known without asking the device.
    image_ids, sizes, original_sizes, files: of each image, as in `Target`.
    image_level:  True where the labels belong to whole images; a batch is of one stream.
    judged:       (B, C) bool, as in `Target`; None for all classes of all images.
    """

    boxes_cxcywh: Float[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    image_index: Int64[Tensor, " N"]
    box_index: Int64[Tensor, " N"]
    counts: tuple[int, ...]
    image_ids: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    original_sizes: tuple[tuple[int, int], ...]
    image_level: bool = False
    files: tuple[tuple[str, ...], ...] = ()
    judged: Bool[Tensor, "B C"] | None = None

    @classmethod
    def from_list(cls, targets: Sequence[Target]) -> Targets:
        """The targets of a batch's images, on one device, as one: all of them `judged`, or none."""
        counts = tuple(len(t) for t in targets)
        labels = torch.cat([t.labels for t in targets])
        index = [(image, box) for image, count in enumerate(counts) for box in range(count)]
        judged = [t.judged for t in targets if t.judged is not None]
        image_index, box_index = torch.tensor(index, dtype=torch.int64).view(-1, 2).to(labels.device).T
        return cls(
            boxes_cxcywh=torch.cat([t.boxes_cxcywh for t in targets]),
            labels=labels,
            image_index=image_index.contiguous(),
            box_index=box_index.contiguous(),
            counts=counts,
            image_ids=tuple(int(t.image_id) for t in targets),
            sizes=tuple(t.size for t in targets),
            original_sizes=tuple(t.original_size for t in targets),
            image_level=any(t.image_level for t in targets),
            files=tuple(t.files for t in targets),
            judged=torch.stack(judged) if judged else None,
        )

    def __len__(self) -> int:
        """Images in the batch."""
        return len(self.counts)

    def without_boxes(self) -> Targets:
        """The same images, as if none had a box or label."""
        names = ("boxes_cxcywh", "labels", "image_index", "box_index")
        return replace(self, **{name: getattr(self, name)[:0] for name in names}, counts=(0,) * len(self))

    def __getitem__(self, image: int) -> Target:
        """The target of one image."""
        if not 0 <= image < len(self):
            raise IndexError(image)
        start = sum(self.counts[:image])
        rows = slice(start, start + self.counts[image])
        return Target(
            self.boxes_cxcywh[rows],
            self.labels[rows],
            self.image_ids[image],
            self.sizes[image],
            self.original_sizes[image],
            self.image_level,
            self.files[image] if self.files else (),
            None if self.judged is None else self.judged[image],
        )


Batch = tuple[PaddedImages, Targets]


@dataclass(frozen=True)
class Detections(_Movable):
    """What was found in one image, best first.

    scores: (K,) float 0..1.  labels: (K,) int64 class index.  boxes_xyxy: (K, 4) float, pixels of the file.
    """

    scores: Float[Tensor, " K"]
    labels: Int64[Tensor, " K"]
    boxes_xyxy: Float[Tensor, "K 4"]

    def __len__(self) -> int:
        return int(self.scores.shape[0])


@dataclass(frozen=True)
class Losses:
    """What a criterion returns.

    total: scalar with a gradient, the weighted sum.
    named: every loss, unweighted and detached, by official name; the names do not depend on the data.
    """

    total: Tensor
    named: dict[str, Tensor]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a nest of mappings, sequences and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from tensors_in(part)
    elif is_dataclass(value):
        for entry in fields(value):
            yield from tensors_in(getattr(value, entry.name))
