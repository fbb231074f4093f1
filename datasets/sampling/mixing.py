"""Two streams in one loader: box-annotated and image-level batches alternate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset

from datasets.sample import SampleIndex
from datasets.sampling.samplers import InfiniteSampler, ShardedSampler

# `SampleIndex.stream` of the image-level images; box-annotated ones have 0.
IMAGE_LEVEL = 1


@dataclass(frozen=True)
class MixRatio:
    """`detection` box-annotated batches, then `image_level` ones, and so on (`main_weight`, `sub_weight`)."""

    detection: int = 1
    image_level: int = 1

    def image_level_batches(self, detection_batches: int) -> int:
        """Image-level batches of an epoch with so many box-annotated ones."""
        return detection_batches // self.detection * self.image_level


ALTERNATING = MixRatio()


@dataclass(frozen=True)
class Window:
    """Epochs from `start` (from 0) up to `end`, itself not among them; None for no end."""

    start: int = 0
    end: int | None = None

    def __contains__(self, epoch: int) -> bool:
        return epoch >= self.start and (self.end is None or epoch < self.end)

    def before(self, epoch: int) -> int:
        """How many of its epochs come before `epoch`."""
        return max(0, min(epoch, epoch if self.end is None else self.end) - self.start)


ALWAYS = Window()


class MixedBatchSampler:
    """Lists of SampleIndex; each list is one batch of one stream (`SampleIndex.stream`).

    An epoch is one pass over the box-annotated images, without their last incomplete batch; the image-level
    stream runs on across epochs. All ranks get the same kind of batch at the same step. In epochs outside of
    `window` box-annotated batches take the places of image-level ones, so every epoch has as many steps; the
    box-annotated stream then runs on across epochs too, pass after pass.

    detection:              sampler of the box-annotated images.
    batch_size:             box-annotated images per batch and rank.
    num_image_level:        image-level images, 0 for none.
    image_level_factors:    (num_image_level,) how often each comes, see `InfiniteSampler`.
    image_level_batch_size: image-level images per batch and rank.
    window:                 epochs with image-level batches (`image_level_start`, `image_level_end`).
    """

    def __init__(
        self,
        detection: ShardedSampler,
        batch_size: int,
        *,
        num_image_level: int = 0,
        image_level_factors: np.ndarray | None = None,
        image_level_batch_size: int = 0,
        mix_ratio: MixRatio = ALTERNATING,
        window: Window = ALWAYS,
    ) -> None:
        self.detection = detection
        self.batch_size = batch_size
        self.image_level_batch_size = image_level_batch_size
        self.mix_ratio = mix_ratio
        self.window = window
        self.epoch = 0
        self.offset = 0
        self.detection_batches = len(detection) // batch_size
        self.image_level_batches = 0
        self.image_level = None
        if num_image_level:
            self.image_level_batches = mix_ratio.image_level_batches(self.detection_batches)
        if self.image_level_batches:
            length = self.image_level_batches * image_level_batch_size * detection.world_size
            self.image_level = InfiniteSampler(
                num_image_level, length, factors=image_level_factors, **detection.shard
            )

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """The next iteration is that of `epoch`, on both streams, without its first `offset` batches.

        `offset` is for exact resume in the middle of an epoch.
        """
        if not 0 <= offset <= len(self):
            raise ValueError(f"batch {offset} of an epoch of {len(self)}")
        self.epoch = epoch
        self.offset = offset
        if self.image_level is not None:
            self.image_level.set_epoch(self.window.before(epoch))

    def __len__(self) -> int:
        """Batches of an epoch on this rank, the same on every rank and in every epoch."""
        return self.detection_batches + self.image_level_batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return islice(self._batches(), self.offset, len(self))

    def _batches(self) -> Iterator[list[SampleIndex]]:
        boxes, image_level = self._detection(), iter(self.image_level or ())
        if self.image_level is None or self.epoch not in self.window:
            yield from boxes
        for number in count(1):
            yield next(boxes)
            if number % self.mix_ratio.detection == 0:
                for _ in range(self.mix_ratio.image_level):
                    batch = islice(image_level, self.image_level_batch_size)
                    yield [index._replace(stream=IMAGE_LEVEL) for index in batch]

    def _detection(self) -> Iterator[list[SampleIndex]]:
        """Box-annotated batches without end, from where the epochs before have left the stream."""
        outside = self.epoch - self.window.before(self.epoch)
        done = self.epoch * self.detection_batches + outside * self.image_level_batches
        first, skipped = divmod(done, self.detection_batches)
        for number in count(first):
            self.detection.set_epoch(number)
            indices = iter(self.detection)
            for _ in range(self.detection_batches):
                batch = list(islice(indices, self.batch_size))
                if skipped:
                    skipped -= 1
                else:
                    yield batch


class ImageDataset(Protocol):
    """What the loader needs of a dataset."""

    def __getitem__(self, index: SampleIndex) -> Any:
        """An image and its Target, or None where it is damaged and left out."""
        ...

    def damaged_names(self) -> list[str]:
        """File names of the images met so far that are damaged."""
        ...

    def missing_names(self) -> list[str]:
        """File names of the images that are missing."""
        ...

    def report(self) -> None:
        """Logs once what is to be said about the images met so far."""
        ...


class MultiDataset(Dataset):
    """Several datasets as one; `SampleIndex.stream` selects."""

    def __init__(self, datasets: Sequence[ImageDataset]) -> None:
        self.datasets = tuple(datasets)

    def __getitem__(self, index: SampleIndex) -> Any:
        return self.datasets[index.stream][index]

    def damaged_names(self) -> list[str]:
        """File names of the images met so far, in all of them, that are damaged."""
        return [name for dataset in self.datasets for name in dataset.damaged_names()]

    def missing_names(self) -> list[str]:
        """File names of the images, in all of them, that are missing."""
        return [name for dataset in self.datasets for name in dataset.missing_names()]

    def report(self) -> None:
        """Of all of them."""
        for dataset in self.datasets:
            dataset.report()
