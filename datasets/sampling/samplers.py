"""The order of images: plain, repeat-factor, class-aware, and the running order of the image-level stream.

An order is a function of (seed, epoch) alone and is the same on any number of ranks: rank r takes positions
r, r + W, r + 2W ... of it. Every epoch has the same length, known before it starts, and every rank the same
share, so that ranks never wait for each other; what does not divide evenly is left out at the end of the
order, which is a different handful of images each epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from datasets.columns import offsets_of
from datasets.sample import SampleIndex

# Salts keep the orders of different samplers apart, and the samples' augmentation too. Never change one:
# it would change the order of every run.
_ORDER_SALT = 0x5EED0000


class ShardedSampler(ABC):
    """One rank's share of an order. Iterating gives SampleIndices; `set_epoch` chooses the epoch.

    length: of the whole order, over all ranks.  seed: of the run.  rank, world_size: of this process.
    """

    salt: ClassVar[int]  # of the sampler's random numbers; each class has its own

    def __init__(self, length: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is that of `epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        """SampleIndices of this rank, the same on every rank and in every epoch."""
        return self.length // self.world_size

    def __iter__(self) -> Iterator[SampleIndex]:
        order = self.order(self.epoch)
        for position in range(self.rank, len(self) * self.world_size, self.world_size):
            yield SampleIndex(int(order[position]), self.epoch, position)

    @abstractmethod
    def order(self, epoch: int) -> np.ndarray:
        """(length,) int64 image indices of one epoch, over all ranks."""

    def _rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, _ORDER_SALT + self.salt))


class ShuffledSampler(ShardedSampler):
    """Every image once an epoch, in a new order each time."""

    salt = 1541

    def order(self, epoch: int) -> np.ndarray:
        return self._rng(epoch).permutation(self.length)


class RepeatFactorSampler(ShardedSampler):
    """Images of rare classes are repeated (Gupta et al., 2019, LVIS).

    factors: (I,) from `repeat_factors`. An image of factor 2.3 comes twice an epoch, and a third time in 30%
        of the epochs. Which ones do is drawn systematically (at even steps over the fractions, laid out in
        random order): every image keeps its chance, yet their number, and so the length, is the same in
        every epoch. It is rounded down to a whole number, and the chances with it.
    """

    salt = 1940

    def __init__(self, factors: np.ndarray, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        factors = np.asarray(factors, dtype=np.float64)
        self._whole = np.floor(factors).astype(np.int64)
        self._fraction = factors - self._whole
        # A sum that means an integer may land just below it.
        self._extra = int(self._fraction.sum() + 1e-6)
        length = int(self._whole.sum()) + self._extra
        super().__init__(length, seed=seed, rank=rank, world_size=world_size)

    def order(self, epoch: int) -> np.ndarray:
        rng = self._rng(epoch)
        counts = self._whole.copy()
        if self._extra:
            shuffled = rng.permutation(len(counts))
            ends = np.cumsum(self._fraction[shuffled])
            steps = np.floor(ends * (self._extra / ends[-1]) + rng.random()).clip(max=self._extra)
            steps[-1] = self._extra
            counts[shuffled] += np.diff(steps, prepend=0).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


class ClassAwareSampler(ShardedSampler):
    """First a class, then one of its images (Shen et al., 2016). As many draws as there are images.

    Every class comes once before any comes again, and so does every image of a class.

    image_index, labels: (M,) image and class of every box.  images: how many there are.
    """

    salt = 1722

    def __init__(
        self,
        image_index: np.ndarray,
        labels: np.ndarray,
        images: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(images, seed=seed, rank=rank, world_size=world_size)
        pairs = np.unique(np.stack((labels, image_index), axis=1).astype(np.int64), axis=0)
        self._present, counts = np.unique(pairs[:, 0], return_counts=True)
        self._images = pairs[:, 1]
        self._offsets = offsets_of(counts)

    def order(self, epoch: int) -> np.ndarray:
        rng = self._rng(epoch)
        passes = -(-self.length // len(self._present))
        classes = np.concatenate([rng.permutation(len(self._present)) for _ in range(passes)])[: self.length]
        order = np.empty(self.length, dtype=np.int64)
        for index in range(len(self._present)):
            places = np.flatnonzero(classes == index)
            members = self._images[self._offsets[index] : self._offsets[index + 1]]
            rounds = -(-len(places) // len(members))
            drawn = [rng.permutation(members) for _ in range(rounds)]
            order[places] = np.concatenate(drawn)[: len(places)] if drawn else places
        return order


class InfiniteSampler(ShardedSampler):
    """The image-level order: one permutation after the other, running on over the epochs.

    An epoch takes the next `length` draws of one endless order in which every image comes once before any
    comes again; each pass is a new permutation. The `epoch` of a SampleIndex is its pass and `position` its
    place in that pass.

    images: how many there are.  length: draws an epoch over all ranks, set by how many batches the loader
        takes.
    """

    salt = 1461

    def __init__(self, images: int, length: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(length, seed=seed, rank=rank, world_size=world_size)
        self.images = images

    def order(self, epoch: int) -> np.ndarray:
        first = epoch * self._taken
        passes = range(first // self.images, -(-(first + self._taken) // self.images))
        orders = [self._rng(p).permutation(self.images) for p in passes]
        start = first - passes.start * self.images
        return np.concatenate(orders)[start : start + self._taken] if orders else np.zeros(0, np.int64)

    def __iter__(self) -> Iterator[SampleIndex]:
        order = self.order(self.epoch)
        for place in range(self.rank, self._taken, self.world_size):
            number, position = divmod(self.epoch * self._taken + place, self.images)
            yield SampleIndex(int(order[place]), number, position)

    @property
    def _taken(self) -> int:
        return len(self) * self.world_size


def repeat_factors(
    image_index: np.ndarray, labels: np.ndarray, images: int, classes: int, threshold: float
) -> np.ndarray:
    """(images,) float64 repeat factor of each image: the largest of its classes' (Gupta et al., 2019).

    r(c) = max(1, sqrt(threshold / f(c))), f(c) the share of images that show class c; 1 for an image
    without boxes. image_index, labels: (M,) of every box. Official option: `rfs_repeat_sh`.
    """
    pairs = np.unique(image_index.astype(np.int64) * classes + labels)
    shown_in = np.bincount(pairs % classes, minlength=classes)
    share = np.maximum(shown_in, 1) / max(images, 1)
    of_class = np.maximum(1.0, np.sqrt(threshold / share))
    factors = np.ones(images)
    np.maximum.at(factors, pairs // classes, of_class[pairs % classes])
    return factors
