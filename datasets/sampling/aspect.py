"""Batches of images of similar aspect: less padding, the same images in an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from datasets.sample import SampleIndex
from datasets.sampling.samplers import ShardedSampler

# Batches are formed within so many batches' worth of the order: enough to find similar images, few enough to
# keep the order random.
WINDOW = 64


class AspectGroupedSampler(ShardedSampler):
    """Another sampler's order, rearranged so that batches hold images of similar aspect.

    Each window of WINDOW batches (over all ranks) is sorted by aspect and cut into batches, which come in
    random order. Every sample keeps its position, and so its random numbers; what the sampler drops at the
    end of its order is still dropped. The result depends on the batch size over all ranks, not on how many
    ranks share it.

    sampler:    gives the order, seed, rank and world size.
    aspects:    (I,) height / width of each image.
    batch_size: images per batch and rank.
    """

    salt = 2058

    def __init__(self, sampler: ShardedSampler, aspects: np.ndarray, batch_size: int) -> None:
        super().__init__(sampler.length, **sampler.shard)
        self.sampler = sampler
        self.aspects = np.asarray(aspects)
        self.batch = batch_size * sampler.world_size

    def order(self, epoch: int) -> np.ndarray:
        order = self.sampler.order(epoch)
        return order[self._places(order, epoch)]

    def __iter__(self) -> Iterator[SampleIndex]:
        order = self.sampler.order(self.epoch)
        places = self._places(order, self.epoch)
        for place in places[self.rank : len(self) * self.world_size : self.world_size].tolist():
            yield SampleIndex(int(order[place]), self.epoch, place)

    def _places(self, order: np.ndarray, epoch: int) -> np.ndarray:
        """(length,) int64 places in `order`, batch after batch."""
        rng = self._rng(epoch)
        aspects = self.aspects[order]
        whole = len(order) // self.batch * self.batch
        batches = []
        for start in range(0, whole, WINDOW * self.batch):
            end = min(start + WINDOW * self.batch, whole)
            places = start + np.argsort(aspects[start:end], kind="stable")
            batches.append(rng.permutation(places.reshape(-1, self.batch)).reshape(-1))
        return np.concatenate([*batches, np.arange(whole, len(order))])


def aspects_of(sizes: np.ndarray) -> np.ndarray:
    """(I, 2) (height, width) -> (I,) height / width, 1 where the size is unknown."""
    height, width = np.asarray(sizes, dtype=np.float64).T
    known = (height > 0) & (width > 0)
    return np.where(known, height, 1) / np.where(known, width, 1)
