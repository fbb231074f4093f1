"""The order of images: shuffled, repeat-factor, class-aware, and the endless image-level order.

An order depends on (seed, epoch) alone and is the same for any number of ranks: rank r takes positions
r, r + W, r + 2W ... of it. All epochs have the same length, known in advance, and all ranks the same share,
so no rank waits for another. The remainder at the end of the order is dropped: other images each epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from datasets.columns import offsets_of
from datasets.sample import SampleIndex

# Salts give each sampler random numbers of its own, apart from those of augmentation. Never change one: that
# would change the order of every run.
_ORDER_SALT = 0x5EED0000


class ShardedSampler(ABC):
    """One rank's share of an order. Iterating yields SampleIndex; `set_epoch` selects the epoch.

    length: of the whole order, over all ranks.  seed: of the run.  rank, world_size: of this process.
    """

    salt: ClassVar[int]  # each class has its own

    def __init__(self, length: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    @property
    def shard(self) -> dict[str, int]:
        """Keyword arguments that give another sampler the same seed and ranks."""
        return {"seed": self.seed, "rank": self.rank, "world_size": self.world_size}

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is that of `epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Samples of this rank, the same on every rank and in every epoch."""
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
    """Repeats images of rare classes (Gupta et al., 2019, LVIS).

    factors: (I,) from `repeat_factors`. An image of factor 2.3 comes twice an epoch, and a third time in 30%
        of the epochs. Systematic sampling (even steps over the fractions, in random order) decides which:
        each image keeps its probability, yet every epoch has the same number of repeats, and so the same
        length. That number is rounded down, and the probabilities with it.
    """

    salt = 1940

    def __init__(self, factors: np.ndarray, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        factors = np.asarray(factors, dtype=np.float64)
        self._whole = np.floor(factors).astype(np.int64)
        self._fraction = factors - self._whole
        # Rounding may leave a whole sum just below its integer.
        self._extra = int(self._fraction.sum() + 1e-6)
        length = int(self._whole.sum()) + self._extra
        super().__init__(length, seed=seed, rank=rank, world_size=world_size)

    def order(self, epoch: int) -> np.ndarray:
        rng = self._rng(epoch)
        counts = self._whole.copy()
        if self._extra:
            counts += _spread(self._extra, self._fraction, rng)
        return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def _spread(total: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64 with sum `total`: each its part by `shares`, rounded up or down by systematic sampling."""
    counts = np.zeros(len(shares), np.int64)
    shuffled = rng.permutation(len(shares))
    ends = np.cumsum(shares[shuffled])
    steps = np.floor(ends * (total / ends[-1]) + rng.random()).clip(max=total)
    steps[-1] = total
    counts[shuffled] = np.diff(steps, prepend=0).astype(np.int64)
    return counts


class ClassAwareSampler(ShardedSampler):
    """Draws a class, then one of its images (Shen et al., 2016); `num_images` draws an epoch.

    Every class is drawn once before any is drawn again, and so is every image of a class.

    image_index, labels: (M,) image and class of every box.
    """

    salt = 1722

    def __init__(
        self,
        image_index: np.ndarray,
        labels: np.ndarray,
        num_images: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(num_images, seed=seed, rank=rank, world_size=world_size)
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
    """The image-level order: one permutation after another, running on across epochs.

    An epoch takes the next `length` elements of one endless order in which every image comes once before
    any repeats. `SampleIndex.epoch` is then the number of the permutation, `position` the place in it.

    length: images an epoch takes over all ranks.
    factors: (num_images,) how often each comes beside the others, in permutations that are as long; None for
        all alike.
    """

    salt = 1461

    def __init__(
        self,
        num_images: int,
        length: int,
        *,
        factors: np.ndarray | None = None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(length, seed=seed, rank=rank, world_size=world_size)
        self.num_images = num_images
        self._factors = factors

    def order(self, epoch: int) -> np.ndarray:
        first = epoch * self._taken
        passes = range(first // self.num_images, -(-(first + self._taken) // self.num_images))
        orders = [self._permutation(p) for p in passes]
        start = first - passes.start * self.num_images
        return np.concatenate(orders)[start : start + self._taken] if orders else np.zeros(0, np.int64)

    def _permutation(self, number: int) -> np.ndarray:
        rng = self._rng(number)
        if self._factors is None:
            return rng.permutation(self.num_images)
        counts = _spread(self.num_images, self._factors, rng)
        return rng.permutation(np.repeat(np.arange(self.num_images), counts))

    def __iter__(self) -> Iterator[SampleIndex]:
        order = self.order(self.epoch)
        for place in range(self.rank, self._taken, self.world_size):
            permutation, position = divmod(self.epoch * self._taken + place, self.num_images)
            yield SampleIndex(int(order[place]), permutation, position)

    @property
    def _taken(self) -> int:
        return len(self) * self.world_size


def repeat_factors(
    image_index: np.ndarray, labels: np.ndarray, *, num_images: int, num_classes: int, threshold: float
) -> np.ndarray:
    """(num_images,) float64 repeat factors: the largest over an image's classes (Gupta et al., 2019).

    As `class_repeat_factors`; 1 for an image without boxes. Official option: `rfs_repeat_sh`.
    """
    class_factors = class_repeat_factors(
        image_index, labels, num_images=num_images, num_classes=num_classes, threshold=threshold
    )
    factors = np.ones(num_images)
    np.maximum.at(factors, image_index, class_factors[labels])
    return factors


def class_repeat_factors(
    image_index: np.ndarray, labels: np.ndarray, *, num_images: int, num_classes: int, threshold: float
) -> np.ndarray:
    """(num_classes,) float64 repeat factors (Gupta et al., 2019).

    r(c) = max(1, sqrt(threshold / f(c))), f(c) the fraction of images that contain class c, as if one did
    where none does. image_index, labels: (M,) of every box.
    """
    pairs = np.unique(image_index.astype(np.int64) * num_classes + labels)
    images_of_class = np.bincount(pairs % num_classes, minlength=num_classes)
    fraction = np.maximum(images_of_class, 1) / max(num_images, 1)
    return np.maximum(1.0, np.sqrt(threshold / fraction))
