"""Deals the classes to the pictures, so that each class gets the number of pictures meant for it."""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from .vocabulary import CLASSES, RARE_MAX_IMAGES, MiniClass, frequency

# The counts in the vocabulary are meant for this many training pictures.
_TRAIN_REFERENCE = 1200
_VAL_REFERENCE = 300
# Validation pictures per class, by frequency: nearly even, so that every class's AP is worth something.
_VAL_IMAGES = {"r": 21, "c": 30, "f": 41}
_MOST_CLASSES = 9
# How many things of a class stand in a picture that shows it.
_THINGS = (1, 2, 3)
_THINGS_SHARE = (0.72, 0.2, 0.08)


def train_counts(pictures: int) -> dict[MiniClass, int]:
    """How many of `pictures` training pictures show each class. Rare classes stay rare in larger sets."""
    scale = pictures / _TRAIN_REFERENCE
    counts = {}
    for c in CLASSES:
        wanted = max(1, round(c.train_images * scale))
        if c.train_images <= RARE_MAX_IMAGES:
            wanted = min(wanted, RARE_MAX_IMAGES)
        counts[c] = min(wanted, pictures)
    return counts


def val_counts(pictures: int) -> dict[MiniClass, int]:
    """How many of `pictures` validation pictures show each class."""
    scale = pictures / _VAL_REFERENCE
    return {c: max(1, min(pictures, round(_VAL_IMAGES[frequency(c.train_images)] * scale))) for c in CLASSES}


def deal(rng: Generator, pictures: int, counts: Mapping[MiniClass, int]) -> list[list[MiniClass]]:
    """The classes of each picture, none twice. Some pictures get few and some get many."""
    appetite = rng.uniform(0.3, 1.7, pictures)
    dealt: list[list[MiniClass]] = [[] for _ in range(pictures)]
    # Rare ones first: they find room everywhere.
    for c in sorted(counts, key=lambda c: counts[c]):
        free = np.array([len(d) < _MOST_CLASSES for d in dealt])
        weights = appetite * free + 1e-9
        for i in rng.choice(pictures, counts[c], replace=False, p=weights / weights.sum()):
            dealt[i].append(c)
    return dealt


def how_many(rng: Generator) -> int:
    """Things of one class in one picture."""
    return int(rng.choice(_THINGS, p=_THINGS_SHARE))
