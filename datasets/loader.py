"""A torch DataLoader that knows its epoch, its true length and the images that could not be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.loader_processes import POLL, LoaderProcesses, in_shared_memory
from datasets.sample import SampleIndex
from datasets.sampling.mixing import ImageDataset, MixedBatchSampler
from util.errors import UserError
from util.lifetime import tie_loader_process
from util.structures import Batch, PaddedImages, Target, Targets

OUT_OF_MEMORY = (
    "no memory for a batch of images: use fewer loader processes (--num_workers), or a smaller batch_size"
)


class ShardBatchSampler:
    """Consecutive batches of this rank's share of 0..length-1: positions r, r + W, ... Each image once, no
    padding.

    Ranks may differ by one image, so the loop must not wait for other ranks.
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, length, world_size)
        self.batch_size = batch_size

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """Without effect: all epochs are the same."""

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [SampleIndex(i) for i in self.indices[start : start + self.batch_size]]


class Loader:
    """Batches of (PaddedImages, Targets).

    dataset:       maps the elements of `batch_sampler` to (image, Target).
    batch_sampler: MixedBatchSampler for training, ShardBatchSampler for evaluation.
    workers:       processes that read ahead, 0 for none. The batches do not depend on it.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_sampler: MixedBatchSampler | ShardBatchSampler,
        *,
        collate: Collate,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batch_sampler
        # Whole batches are the elements of `_Batches`, so `batch_size` and collating by torch are off.
        self._loader = DataLoader(
            _Batches(dataset, collate),
            sampler=batch_sampler,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=workers,
            pin_memory=pin_memory and torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=tie_loader_process,
            # Its workers' seed would come from the generator that the model draws from, and how often depends
            # on workers and on resuming. Images take their random numbers from their SampleIndex.
            generator=torch.Generator(),
            timeout=POLL if workers else 0,
        )
        self._processes = LoaderProcesses(self._loader) if workers else None

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """The next iteration is that of `epoch`; without effect on an evaluation loader.

        offset: batches of this rank to skip, for exact resume: with the run's seed, (epoch, offset) is all it
            takes to continue in the middle of an epoch. The length stays that of a whole epoch.
        """
        self.batch_sampler.set_epoch(epoch, offset)

    def __iter__(self) -> Iterator[Batch]:
        """Raises UserError, in one line, where a worker met one, died or is stuck."""
        for batch in self._processes.batches() if self._processes else self._loader:
            if isinstance(batch, UserError):
                raise batch
            if batch is not None:
                yield batch
        self.dataset.report()

    def damaged(self) -> list[str]:
        """Names of the images met so far, in any worker of this rank, that are damaged."""
        return self.dataset.damaged_names()

    def missing(self) -> list[str]:
        """Names of the images that are missing, as far as this rank knows."""
        return self.dataset.missing_names()


class _Batches(Dataset):
    """Lists of SampleIndex -> collated batches, without damaged images; None where no image is left.

    A UserError is the batch, not raised: torch would replace its message with the worker's traceback.
    """

    def __init__(self, dataset: ImageDataset, collate: Collate) -> None:
        self.dataset = dataset
        self.collate = collate

    def __getitem__(self, indices: Sequence[SampleIndex]) -> Batch | UserError | None:
        try:
            images = [image for index in indices if (image := self.dataset[index]) is not None]
            return in_shared_memory(self.collate(images)) if images else None
        except UserError as error:
            return error
        except MemoryError:
            return UserError(OUT_OF_MEMORY)
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):
                raise
            return UserError(OUT_OF_MEMORY)


def _unchanged(batch: Any) -> Any:
    return batch


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
