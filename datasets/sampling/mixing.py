"""Two streams in one loader: batches of box-annotated and of image-level images take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from torch.utils.data import Dataset

from datasets.sample import SampleIndex
from datasets.sampling.samplers import InfiniteSampler, ShardedSampler

MAIN, SUB = 0, 1


@dataclass(frozen=True)
class MixRatio:
    """`main` batches of the first stream, `sub` of the second, and again (`main_weight`, `sub_weight`)."""

    main: int = 1
    sub: int = 1

    def sub_batches(self, main_batches: int) -> int:
        """How many batches the second stream gives while the first gives `main_batches`."""
        return main_batches // self.main * self.sub


ONE_TO_ONE = MixRatio()


class MixedBatchSampler:
    """Lists of SampleIndices; each list is a batch of one stream, marked in `SampleIndex.stream`.

    An epoch is one pass over the main stream, whose last incomplete batch is left out; the image-level stream
    runs on from epoch to epoch. Ranks take turns in step, so all of them see the same kind of batch at the
    same time.

    main:  sampler of the box-annotated images.    batch_size:     images of it per batch and rank.
    sub:   number of image-level images, 0 for none. sub_batch_size: images of it per batch and rank.
    """

    def __init__(
        self,
        main: ShardedSampler,
        batch_size: int,
        *,
        sub: int = 0,
        sub_batch_size: int = 0,
        turns: MixRatio = ONE_TO_ONE,
    ) -> None:
        self.main = main
        self.batch_size = batch_size
        self.sub_batch_size = sub_batch_size
        self.turns = turns
        self.offset = 0
        self.main_batches = len(main) // batch_size
        self.sub_batches = turns.sub_batches(self.main_batches) if sub else 0
        self.sub = None
        if self.sub_batches:
            length = self.sub_batches * sub_batch_size * main.world_size
            shard = {"seed": main.seed, "rank": main.rank, "world_size": main.world_size}
            self.sub = InfiniteSampler(sub, length, **shard)

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """The next iteration is that of `epoch`, on both streams, without its first `offset` batches."""
        if not 0 <= offset <= len(self):
            raise ValueError(f"batch {offset} of an epoch of {len(self)}")
        self.offset = offset
        self.main.set_epoch(epoch)
        if self.sub is not None:
            self.sub.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of an epoch on this rank, the same on every rank and in every epoch."""
        return self.main_batches + self.sub_batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return islice(self._batches(), self.offset, None)

    def _batches(self) -> Iterator[list[SampleIndex]]:
        main, sub = iter(self.main), iter(self.sub or ())
        for number in range(1, self.main_batches + 1):
            yield list(islice(main, self.batch_size))
            if self.sub is not None and number % self.turns.main == 0:
                for _ in range(self.turns.sub):
                    yield [draw._replace(stream=SUB) for draw in islice(sub, self.sub_batch_size)]


class MultiDataset(Dataset):
    """Several datasets as one; `SampleIndex.stream` says which."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = tuple(datasets)

    def __getitem__(self, draw: SampleIndex):
        return self.datasets[draw.stream][draw]
