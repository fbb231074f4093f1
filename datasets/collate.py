"""Samples -> batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from util.structures import PaddedImages, Target


@dataclass(frozen=True)
class Collate:
    """[(picture (3, h, w), Target), ...] -> (PaddedImages, targets). A class, so that spawned workers can
    have it.

    size_divisor: batches are padded to a height and width that this divides.
    """

    size_divisor: int = 1

    def __call__(self, batch: Sequence[tuple[Tensor, Target]]) -> tuple[PaddedImages, tuple[Target, ...]]:
        pictures, targets = zip(*batch, strict=True)
        return PaddedImages.from_list(pictures, self.size_divisor), targets
