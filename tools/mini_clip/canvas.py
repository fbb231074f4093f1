"""Many images side by side on one canvas: what the trunk is trained on.

A teacher that looks at a whole scene and pools regions from its last map must tell a region from its
neighbours. An image alone never teaches that; RichSem's mosaic of labelled images does, and needs no box.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from PIL import Image

from .images import Labelled

_LEAST_CROP = 0.65
_TURNED, _TURN = 0.5, 25
_OCCLUDED = 0.5


@dataclass(frozen=True)
class CanvasBatch:
    """pixels (B, side, side, 3) uint8; regions (R, 5) float32: canvas number and xyxy pixels; labels (R,)."""

    pixels: np.ndarray
    regions: np.ndarray
    labels: np.ndarray


def balanced_order(labels: np.ndarray, rng: Generator) -> Iterator[int]:
    """Image indices without end, every class equally often, each image of a class before any repeats."""
    waiting: dict[int, list[int]] = {c: [] for c in np.unique(labels).tolist()}
    while True:
        for c in rng.permutation(list(waiting)).tolist():
            if not waiting[c]:
                waiting[c] = rng.permutation(np.flatnonzero(labels == c)).tolist()
            yield waiting[c].pop()


def _cuts(side: int, tile: float, rng: Generator) -> np.ndarray:
    """Borders that part `side` pixels into strips about `tile` pixels wide."""
    strips = max(1, round(side / tile))
    lengths = rng.uniform(0.75, 1.25, strips)
    return np.round(np.concatenate(([0], np.cumsum(lengths) / lengths.sum() * side))).astype(int)


def _tile(image: Image.Image, width: int, height: int, rng: Generator) -> Image.Image:
    """A random crop of the image, resized to (width, height), perhaps flipped and turned a little."""
    if rng.random() < _TURNED:
        fill = tuple(int(v) for v in rng.integers(60, 200, 3))
        image = image.rotate(rng.uniform(-_TURN, _TURN), Image.Resampling.BILINEAR, fillcolor=fill)
    share = rng.uniform(_LEAST_CROP, 1.0)
    aspect = np.exp(rng.uniform(-0.25, 0.25)) * width / height * image.height / image.width
    w = image.width * min(1.0, share * max(1.0, aspect) ** 0.5)
    h = image.height * min(1.0, share * max(1.0, 1 / aspect) ** 0.5)
    x, y = rng.uniform(0, image.width - w + 1e-6), rng.uniform(0, image.height - h + 1e-6)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else resized


def _occluded(tile: Image.Image, other: Image.Image, rng: Generator) -> Image.Image:
    """The tile with a corner of another image pasted somewhere: things stand behind others."""
    width, height = (max(1, round(side * rng.uniform(0.12, 0.4))) for side in tile.size)
    patch = other.crop((0, 0, min(other.width, 2 * width), min(other.height, 2 * height))).resize(
        (width, height)
    )
    x, y = rng.integers(0, tile.width - width + 1), rng.integers(0, tile.height - height + 1)
    tile.paste(patch, (int(x), int(y)))
    return tile


def _relit(tile: Image.Image, rng: Generator) -> np.ndarray:
    """Another contrast and brightness -> (h, w, 3) uint8."""
    pixels = np.asarray(tile, dtype=np.float32)
    pixels = (pixels - 118) * rng.uniform(0.7, 1.3) + 118 + rng.uniform(-25, 25)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw_batch(
    data: Labelled, order: Iterator[int], canvases: int, side: int, tile: tuple[float, float], rng: Generator
) -> CanvasBatch:
    """`canvases` canvases of `side` pixels full of images; each canvas draws their size from `tile`."""
    pixels = np.empty((canvases, side, side, 3), dtype=np.uint8)
    regions, labels = [], []
    for number in range(canvases):
        size = np.exp(rng.uniform(*np.log(tile)))
        for y0, y1 in pairwise(_cuts(side, size, rng)):
            for x0, x1 in pairwise(_cuts(side, size, rng)):
                index = next(order)
                drawn = _tile(data.images[index], int(x1 - x0), int(y1 - y0), rng)
                if rng.random() < _OCCLUDED:
                    drawn = _occluded(drawn, data.images[rng.integers(len(data))], rng)
                pixels[number, y0:y1, x0:x1] = _relit(drawn, rng)
                regions.append((number, x0, y0, x1, y1))
                labels.append(data.labels[index])
    return CanvasBatch(pixels, np.array(regions, dtype=np.float32), np.array(labels, dtype=np.int64))
