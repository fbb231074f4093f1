"""Two streams in one loader: box-annotated and image-level batches alternate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

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


class MixedBatchSampler:
    """Lists of SampleIndex; each list is one batch of one stream (`SampleIndex.stream`).

    An epoch is one pass over the box-annotated images, without their last incomplete batch; the image-level
    stream runs on across epochs. All ranks get the same kind of batch at the same step.

    detection:              sampler of the box-annotated images.
    batch_size:             box-annotated images per batch and rank.
    num_image_level:        image-level images, 0 for none.
    image_level_batch_size: image-level images per batch and rank.
    """

    def __init__(
        self,
        detection: ShardedSampler,
        batch_size: int,
        *,
        num_image_level: int = 0,
        image_level_batch_size: int = 0,
        mix_ratio: MixRatio = ALTERNATING,
    ) -> None:
        self.detection = detection
        self.batch_size = batch_size
        self.image_level_batch_size = image_level_batch_size
        self.mix_ratio = mix_ratio
        self.offset = 0
        self.detection_batches = len(detection) // batch_size
        self.image_level_batches = 0
        self.image_level = None
        if num_image_level:
            self.image_level_batches = mix_ratio.image_level_batches(self.detection_batches)
        if self.image_level_batches:
            length = self.image_level_batches * image_level_batch_size * detection.world_size
            self.image_level = InfiniteSampler(num_image_level, length, **detection.shard)

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """The next iteration is that of `epoch`, on both streams, without its first `offset` batches.

        `offset` is for exact resume in the middle of an epoch.
        """
        if not 0 <= offset <= len(self):
            raise ValueError(f"batch {offset} of an epoch of {len(self)}")
        self.offset = offset
        self.detection.set_epoch(epoch)
        if self.image_level is not None:
            self.image_level.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of an epoch on this rank, the same on every rank and in every epoch."""
        return self.detection_batches + self.image_level_batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return islice(self._batches(), self.offset, None)

    def _batches(self) -> Iterator[list[SampleIndex]]:
        detection, image_level = iter(self.detection), iter(self.image_level or ())
        for number in range(1, self.detection_batches + 1):
            yield list(islice(detection, self.batch_size))
            if self.image_level is not None and number % self.mix_ratio.detection == 0:
                for _ in range(self.mix_ratio.image_level):
                    batch = islice(image_level, self.image_level_batch_size)
                    yield [index._replace(stream=IMAGE_LEVEL) for index in batch]


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
