"""Many pictures side by side on one canvas: what the trunk is trained on.

A teacher that looks at a whole scene and pools regions from its last map must tell a region from its
neighbours. A picture alone never teaches that; RichSem's mosaic of labelled pictures does, and needs no box.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from PIL import Image

from .pictures import Labelled

_LEAST_CROP = 0.55


@dataclass(frozen=True)
class CanvasBatch:
    """pixels (B, side, side, 3) uint8; regions (R, 5) float32: canvas number and xyxy pixels; labels (R,)."""

    pixels: np.ndarray
    regions: np.ndarray
    labels: np.ndarray


def balanced_order(labels: np.ndarray, rng: Generator) -> Iterator[int]:
    """Picture indices without end, every class equally often, each picture of a class before any repeats."""
    waiting: dict[int, list[int]] = {c: [] for c in np.unique(labels).tolist()}
    while True:
        for c in rng.permutation(list(waiting)).tolist():
            if not waiting[c]:
                waiting[c] = rng.permutation(np.flatnonzero(labels == c)).tolist()
            yield waiting[c].pop()


def _cuts(side: int, tile: Sequence[float], rng: Generator) -> np.ndarray:
    """Borders that part `side` pixels into strips about as long as `tile` (lowest, highest) says."""
    strips = max(1, round(side / rng.uniform(*tile)))
    lengths = rng.uniform(0.75, 1.25, strips)
    return np.round(np.concatenate(([0], np.cumsum(lengths) / lengths.sum() * side))).astype(int)


def _tile(picture: Image.Image, width: int, height: int, rng: Generator) -> np.ndarray:
    """A random crop of the picture, resized, perhaps flipped, in other light -> (height, width, 3) uint8."""
    share = rng.uniform(_LEAST_CROP, 1.0)
    aspect = np.exp(rng.uniform(-0.25, 0.25)) * width / height * picture.height / picture.width
    w = picture.width * min(1.0, share * max(1.0, aspect) ** 0.5)
    h = picture.height * min(1.0, share * max(1.0, 1 / aspect) ** 0.5)
    x, y = rng.uniform(0, picture.width - w + 1e-6), rng.uniform(0, picture.height - h + 1e-6)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    if rng.random() < 0.5:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(resized, dtype=np.float32)
    pixels = (pixels - 118) * rng.uniform(0.75, 1.25) + 118 + rng.uniform(-20, 20)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw_batch(
    data: Labelled, order: Iterator[int], canvases: int, side: int, tile: tuple[float, float], rng: Generator
) -> CanvasBatch:
    """Fills `canvases` canvases of `side` pixels with pictures about `tile` (least, most) pixels large."""
    pixels = np.empty((canvases, side, side, 3), dtype=np.uint8)
    regions, labels = [], []
    for number in range(canvases):
        rows = _cuts(side, tile, rng)
        for y0, y1 in pairwise(rows):
            columns = _cuts(side, tile, rng)
            for x0, x1 in pairwise(columns):
                index = next(order)
                pixels[number, y0:y1, x0:x1] = _tile(data.pictures[index], int(x1 - x0), int(y1 - y0), rng)
                regions.append((number, x0, y0, x1, y1))
                labels.append(data.labels[index])
    return CanvasBatch(pixels, np.array(regions, dtype=np.float32), np.array(labels, dtype=np.int64))
