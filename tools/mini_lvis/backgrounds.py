"""Textured backgrounds: (height, width, 3) float32 in 0..255."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image


def muted_colour(rng: Generator) -> np.ndarray:
    """A colour a wall or a table may have: any hue, mostly little of it."""
    grey = rng.uniform(60, 205)
    tint = rng.normal(0, 1, 3)
    return np.clip(grey + tint * rng.choice((8.0, 20.0, 40.0), p=(0.45, 0.35, 0.2)), 20, 240)


def smooth_noise(rng: Generator, height: int, width: int, cells: int) -> np.ndarray:
    """(height, width) noise of about unit size, smooth over width / cells pixels."""
    coarse = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _cloudy(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    h, w = x.shape
    return 0.6 * smooth_noise(rng, h, w, 4) + 0.4 * smooth_noise(rng, h, w, 13)


def _wood(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = x.shape
    warp = smooth_noise(rng, height, width, 5) * np.float32(rng.uniform(3, 9))
    coarse, fine = np.float32(2 * np.pi) / np.array([rng.uniform(5, 16), rng.uniform(2.5, 4)], np.float32)
    return 0.55 * np.sin((y + warp) * coarse + 0.02 * x) + 0.35 * np.sin((y + 0.5 * warp) * fine)


def _tiles(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    side = rng.uniform(16, 38)
    dx, dy = rng.uniform(0, side, 2)
    across, down = x[0] + dx, y[:, :1] + dy
    column, row = (across // side).astype(int), (down // side).astype(int)
    shade = rng.normal(0, 0.5, (row.max() + 1, column.max() + 1))[row, column]
    seam = np.minimum(across % side, down % side) < rng.uniform(1, 2.5)
    return np.where(seam, -1.3, shade)


def _fabric(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    period = rng.uniform(3, 12)
    angle = rng.uniform(0, np.pi)
    across, along = np.array([np.cos(angle), np.sin(angle)], np.float32) * np.float32(2 * np.pi / period)
    return 0.5 * np.sin(x * across + y * along) + 0.5 * np.sin(y * across - x * along)


def _pebbles(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    h, w = x.shape
    grains = smooth_noise(rng, h, w, int(rng.integers(18, 34)))
    return 1.2 * np.tanh(2 * grains) * 0.7 + 0.3 * smooth_noise(rng, h, w, 3)


_TEXTURES: tuple[Callable, ...] = (_cloudy, _wood, _tiles, _fabric, _pebbles)


def _surface(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    texture = _TEXTURES[rng.integers(len(_TEXTURES))](rng, x, y)
    direction = (rng.normal(0, 1, 3) * 6 + rng.uniform(10, 30)).astype(np.float32)
    return texture.astype(np.float32)[..., None] * direction + muted_colour(rng).astype(np.float32)


def draw_background(rng: Generator, height: int, width: int) -> np.ndarray:
    """One texture, or two that meet at a slanted edge, as a table does a wall."""
    y, x = np.indices((height, width), dtype=np.float32)
    image = _surface(rng, x, y)
    if rng.random() < 0.45:
        edge = y - height * rng.uniform(0.25, 0.75) + (x - width / 2) * rng.uniform(-0.35, 0.35)
        image = np.where(edge[..., None] > 0, _surface(rng, x, y), image)
    return image
