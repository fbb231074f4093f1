"""The 2x2 mosaic of the image-level stream: each coarse box covers about a quarter of the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from datasets.augment.policy import resized
from datasets.sample import Sample


@dataclass(frozen=True)
class Mosaic:
    """Four images on one square canvas.

    size:   side of the canvas in pixels.
    centre: range of the point where the images meet, in units of half a canvas (1 = the middle); x and y are
        drawn independently.
    fill:   grey level of the uncovered canvas.
    """

    size: int = 1280
    centre: tuple[float, float] = (0.5, 1.5)
    fill: int = 114

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        """Four samples (top left, top right, bottom left, bottom right) -> one of (size, size).

        Each image is scaled to fit half a canvas and placed with its inner corner at the meeting point.
        Boxes are clipped to the canvas; those without a visible part are dropped.
        """
        half = self.size // 2
        x, y = (round(float(rng.uniform(*self.centre)) * half) for _ in range(2))
        return self.at(samples, x, y)

    def at(self, samples: Sequence[Sample], x: int, y: int) -> Sample:
        """The mosaic whose images meet at pixel (x, y) of the canvas."""
        # Channels interleaved, as in the tiles.
        canvas = torch.full((self.size, self.size, 3), self.fill, dtype=torch.uint8).permute(2, 0, 1)
        boxes, labels = [], []
        for corner, sample in enumerate(samples):
            tile = resized(sample, fitting_size(sample.size, self.size // 2))
            height, width = tile.size
            left = x if corner % 2 else x - width
            top = y if corner // 2 else y - height
            # The visible part of the tile.
            x0, x1 = max(left, 0), min(left + width, self.size)
            y0, y1 = max(top, 0), min(top + height, self.size)
            if x0 < x1 and y0 < y1:
                canvas[:, y0:y1, x0:x1] = tile.image[:, y0 - top : y1 - top, x0 - left : x1 - left]
            boxes.append(tile.boxes.as_subclass(torch.Tensor) + torch.tensor([left, top, left, top]))
            labels.append(tile.labels)
        return Sample.from_arrays(canvas, torch.cat(boxes), torch.cat(labels)).sanitised()


def fitting_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of the same aspect whose longer side is `side` pixels."""
    height, width = size
    scale = min(side / height, side / width)
    return max(1, round(height * scale)), max(1, round(width * scale))
