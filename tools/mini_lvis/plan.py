"""Deals the classes to the images, so that each class gets its planned number of images."""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from datasets.annotations.frequency import RARE, frequency_of

from .vocabulary import MiniClass, Vocabulary

# The counts in the vocabulary are meant for this many training images.
_TRAIN_REFERENCE = 1200
_VAL_REFERENCE = 300
_MOST_CLASSES = 9
# How many things of a class stand in an image that shows it.
_THINGS = (1, 2, 3)
_THINGS_SHARE = (0.72, 0.2, 0.08)


def train_counts(vocabulary: Vocabulary, images: int) -> dict[MiniClass, int]:
    """How many of `images` training images show each class. Rare classes stay rare in larger sets."""
    scale = images / _TRAIN_REFERENCE
    counts = {}
    for c in vocabulary.classes:
        count = max(1, round(c.train_images * scale))
        if c.train_images <= RARE:
            count = min(count, RARE)
        counts[c] = min(count, images)
    return counts


def val_counts(vocabulary: Vocabulary, images: int) -> dict[MiniClass, int]:
    """How many of `images` validation images show each class."""
    scale = images / _VAL_REFERENCE
    wanted = vocabulary.val_images
    return {
        c: max(1, min(images, round(wanted[frequency_of(c.train_images)] * scale)))
        for c in vocabulary.classes
    }


def deal(rng: Generator, images: int, counts: Mapping[MiniClass, int]) -> list[list[MiniClass]]:
    """The classes of each image, none twice. Some images get few and some get many."""
    appetite = rng.uniform(0.3, 1.7, images)
    dealt: list[list[MiniClass]] = [[] for _ in range(images)]
    # Rare ones first: they find room everywhere.
    for c in sorted(counts, key=lambda c: counts[c]):
        free = np.array([len(d) < _MOST_CLASSES for d in dealt])
        weights = appetite * free + 1e-9
        for i in rng.choice(images, counts[c], replace=False, p=weights / weights.sum()):
            dealt[i].append(c)
    return dealt


def how_many(rng: Generator) -> int:
    """Things of one class in one image."""
    return int(rng.choice(_THINGS, p=_THINGS_SHARE))
