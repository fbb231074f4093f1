"""What fills a shape: a share of the second colour for each pixel.

A pattern is given each pixel's place on the shape, (u, v) in the shape's own pixels (before it was
turned), the shape's size and a random generator, and returns (h, w) in 0..1: 0 shows the first colour.
Edges are soft over one pixel, which is the anti-aliasing.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator


def _soft(signed_pixels: np.ndarray) -> np.ndarray:
    """Signed distance to an edge in pixels -> coverage."""
    return np.clip(signed_pixels + 0.5, 0, 1)


def _period(size: float, rng: Generator, share: float, least: float = 5.0) -> float:
    return max(least, size * share * rng.uniform(0.85, 1.2))


def _bands(t: np.ndarray, period: float, width: float) -> np.ndarray:
    """Bands across `t`, `width` of each period, soft edges."""
    inside = np.abs((t / period) % 1.0 - 0.5)
    return _soft((width / 2 - inside) * period)


def plain(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    return np.zeros_like(u)


def striped(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    angle = rng.uniform(0, np.pi)
    return _bands(
        u * np.cos(angle) + v * np.sin(angle) + rng.uniform(0, size), _period(size, rng, 0.26), 0.45
    )


def checkered(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    period = _period(size, rng, 0.42, 7.0)
    a = _bands(u + rng.uniform(0, period), period, 0.5)
    b = _bands(v + rng.uniform(0, period), period, 0.5)
    return a + b - 2 * a * b


def dotted(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    period = _period(size, rng, 0.3, 6.0)
    u, v = u / period + rng.uniform(), v / period + rng.uniform()
    row = np.floor(v)
    # Every second row is shifted by half a period.
    du = (u + 0.5 * (row % 2)) % 1.0 - 0.5
    return _soft((0.3 - np.hypot(du, v - row - 0.5)) * period)


def wavy(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    period = _period(size, rng, 0.3, 6.0)
    return _bands(
        v + 0.4 * period * np.sin(u * (2 * np.pi / (1.5 * period))) + rng.uniform(0, period), period, 0.45
    )


def zigzag(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    period = _period(size, rng, 0.32, 6.0)
    teeth = np.abs((u / period + rng.uniform()) % 1.0 - 0.5) * 1.6 * period
    return _bands(v + teeth, period, 0.42)


def speckled(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    count = 26
    at = rng.uniform(-0.55, 0.55, (count, 2)) * size
    radius = rng.uniform(0.6, 1.3, count) * max(0.9, 0.03 * size)
    far = np.hypot(u[..., None] - at[:, 0], v[..., None] - at[:, 1]) - radius
    return _soft(-far.min(axis=-1))


def spiral(u: np.ndarray, v: np.ndarray, size: float, rng: Generator) -> np.ndarray:
    period = _period(size, rng, 0.28, 6.0)
    turns = np.arctan2(v, u) / (2 * np.pi) * rng.choice((-1.0, 1.0))
    return _bands(np.hypot(u, v) + turns * period + rng.uniform(0, period), period, 0.42)


PATTERNS: dict[str, Callable] = {
    f.__name__: f for f in (plain, striped, checkered, dotted, wavy, zigzag, speckled, spiral)
}
