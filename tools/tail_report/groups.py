"""The groups of classes that a report tells apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.annotations.categories import FREQUENCIES
from datasets.annotations.frequency import COMMON, RARE, group_of
from datasets.evaluation.dataset_record import RecordedClass

_NAMES = {"r": "rare", "c": "common", "f": "frequent"}
_RANGES = {"r": f"up to {RARE} training images", "c": f"{RARE + 1} to {COMMON}", "f": f"more than {COMMON}"}


@dataclass(frozen=True)
class Grouping:
    """keys: (K,) 'r', 'c', 'f' or '' for each class.  source: where they are from, in words."""

    keys: tuple[str, ...]
    source: str

    def groups(self) -> list[tuple[str, str, np.ndarray]]:
        """(key, name, (K,) bool) of all classes and of each group that has one."""
        keys = np.array(self.keys)
        found = [("all", "all classes", np.ones(len(keys), bool))]
        return found + [(k, _NAMES[k], keys == k) for k in FREQUENCIES if (keys == k).any()]


def group_classes(classes: Sequence[RecordedClass]) -> Grouping:
    """By the frequencies of the annotations; where they have none, by training images and LVIS's cuts."""
    keys = tuple(group_of(c.frequency, c.train_images) for c in classes)
    if not any(keys):
        return Grouping(keys, "none: the annotations have no frequencies, and training counts are unknown")
    cuts = "; ".join(f"{_NAMES[k]}: {text}" for k, text in _RANGES.items())
    return Grouping(
        keys, f"the annotations' frequencies; where they have none, LVIS's cuts of training images ({cuts})"
    )
