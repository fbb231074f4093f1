"""A torch DataLoader that knows its epoch, its true length and the images it could not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.sampling.mixing import MixedBatchSampler, MultiDataset
from util.errors import UserError
from util.structures import PaddedImages, Target, Targets

Batch = tuple[PaddedImages, Targets]


class ShardBatchSampler:
    """Consecutive batches of this rank's share of 0..length-1: position r, r + W ... Each image once, no
    padding.

    Ranks may differ by one image, so nothing may wait for another rank within the loop.
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, length, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield list(self.indices[start : start + self.batch_size])


class Loader:
    """Batches of (PaddedImages, Targets).

    dataset:       gives (image, Target) for what `batch_sampler` lists.
    batch_sampler: MixedBatchSampler for training, ShardBatchSampler for evaluation.
    workers:       processes that read ahead, 0 for none. The batches do not depend on it.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_sampler: MixedBatchSampler | ShardBatchSampler,
        *,
        collate: Collate,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        self._loader = DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory and torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """The next iteration is that of `epoch`; without effect on an evaluation loader.

        offset: batches of this rank to leave out at the beginning: with the run's seed, (epoch, offset) is
            all that it takes to go on in the middle of an epoch. The length stays that of a whole epoch.
        """
        if isinstance(self.batch_sampler, MixedBatchSampler):
            self.batch_sampler.set_epoch(epoch, offset)

    def __iter__(self) -> Iterator[Batch]:
        """Raises UserError, in one line, where a worker met one."""
        try:
            yield from self._loader
        except UserError as error:
            # A worker's exception arrives with its whole traceback as the message.
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None

    def damaged(self) -> list[str]:
        """Names of the images met so far, in any worker of this rank, that could not be used."""
        sets = self.dataset.datasets if isinstance(self.dataset, MultiDataset) else (self.dataset,)
        return [name for part in sets for name in part.damaged_names()]


@dataclass(frozen=True)
class Collate:
    """[(image (3, h, w), Target), ...] -> (PaddedImages, Targets). A class, so that spawned workers can
    have it.

    size_divisor: batches are padded to a height and width that this divides.
    """

    size_divisor: int = 1

    def __call__(self, batch: Sequence[tuple[Tensor, Target]]) -> Batch:
        images, targets = zip(*batch, strict=True)
        return PaddedImages.from_list(images, self.size_divisor), Targets.from_list(targets)
