"""Single things as patches of colour and coverage: members of a class, lookalikes, clutter."""

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .backgrounds import muted_colour
from .patterns import PATTERNS
from .shapes import OUTLINES, coverage, transform
from .vocabulary import (
    COLOURS,
    COMMON_COLOURS,
    COMMON_PATTERNS,
    COMMON_SHAPES,
    RARE_COLOURS,
    RARE_PATTERNS,
    RARE_SHAPES,
    Kind,
)

_LIGHT, _DARK = np.array((238, 234, 224.0)), np.array((34, 32, 38.0))


@dataclass(frozen=True)
class Patch:
    """colour (h, w, 3) float32 0..255, alpha (h, w) float32 0..1 and the pixel (x, y) that is its middle."""

    colour: np.ndarray
    alpha: np.ndarray
    middle: tuple[float, float]


def _place_on_shape(
    shape: tuple[int, int], middle: np.ndarray, matrix: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel centre its (u, v) on the unturned shape, in pixels."""
    y = np.arange(0.5, shape[0], dtype=np.float32)[:, None] - np.float32(middle[1])
    x = np.arange(0.5, shape[1], dtype=np.float32) - np.float32(middle[0])
    (a, b), (c, d) = (matrix * (2 / size)).tolist()
    determinant = a * d - b * c
    return (d * x - b * y) / determinant, (a * y - c * x) / determinant


def draw_kind(kind: Kind, size: float, rng: Generator) -> Patch:
    """One thing about `size` pixels wide: turned, stretched, shaded, in a shade of its colour."""
    matrix = transform(size, rng.uniform(-0.6, 0.6), rng.uniform(0.78, 1.28), rng.uniform(-0.18, 0.18))
    alpha, middle = coverage(*OUTLINES[kind.shape], matrix)
    u, v = _place_on_shape(alpha.shape, middle, matrix, size)
    first = np.clip(np.array(COLOURS[kind.colour]) * rng.uniform(0.78, 1.14) + rng.normal(0, 9, 3), 0, 255)
    # The second colour tells nothing: light or dark, never a colour of the list.
    second = (_LIGHT if rng.random() < 0.7 else _DARK) + rng.normal(0, 8, 3)
    share = PATTERNS[kind.pattern](u, v, size, rng)[..., None]
    colour = first * (1 - share) + second * share
    direction = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.28) * (u * np.cos(direction) + v * np.sin(direction)) / size
    colour = colour * light[..., None]
    if rng.random() < 0.5:
        # A rim where coverage falls within about a pixel and a half of the edge.
        rim = np.clip(1.15 - _blurred(alpha), 0, 1) ** 2 * rng.uniform(0.2, 0.8)
        colour = colour * (1 - rim[..., None])
    return Patch(colour.astype(np.float32), alpha, tuple(middle))


def _blurred(alpha: np.ndarray) -> np.ndarray:
    padded = np.zeros((alpha.shape[0] + 2, alpha.shape[1] + 2), dtype=np.float32)
    padded[1:-1, 1:-1] = alpha
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def lookalike(rng: Generator, classes: Container[Kind]) -> Kind:
    """A combination that is none of the classes, mostly built from parts of frequent classes."""
    while True:
        if rng.random() < 0.85:
            kind = Kind(rng.choice(COMMON_PATTERNS), rng.choice(COMMON_COLOURS), rng.choice(COMMON_SHAPES))
        else:
            kind = Kind(
                rng.choice(COMMON_PATTERNS + RARE_PATTERNS),
                rng.choice(COMMON_COLOURS + RARE_COLOURS),
                rng.choice(COMMON_SHAPES + RARE_SHAPES),
            )
        if kind not in classes:
            return kind


def draw_clutter(size: float, rng: Generator) -> Patch:
    """A lump or a stick of some colour: shapes and looks that no class has."""
    if rng.random() < 0.6:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 9))))
        radii = rng.uniform(0.5, 1.1, len(angles))
        outline = np.stack((radii * np.cos(angles), radii * np.sin(angles)), axis=1)
        stretch = rng.uniform(0.6, 1.6)
    else:
        thin = rng.uniform(0.06, 0.2)
        bend = rng.uniform(-0.3, 0.3)
        outline = np.array(
            [(-1.2, -thin), (0, bend - thin), (1.2, -thin), (1.2, thin), (0, bend + thin), (-1.2, thin)]
        )
        stretch = 1.0
    matrix = transform(size, rng.uniform(0, 2 * np.pi), stretch, 0.0)
    alpha, middle = coverage(outline, None, matrix)
    colour = (
        muted_colour(rng)
        if rng.random() < 0.6
        else np.array(list(COLOURS.values())[rng.integers(len(COLOURS))])
    )
    u, v = _place_on_shape(alpha.shape, middle, matrix, size)
    light = 1 + rng.uniform(-0.3, 0.3) * u / size + rng.uniform(-0.3, 0.3) * v / size
    return Patch((colour * light[..., None]).astype(np.float32), alpha, tuple(middle))
