"""Outlines of the shapes, as anti-aliased coverage masks."""

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLE = 4


def _around(radii: np.ndarray, start: float = -np.pi / 2) -> np.ndarray:
    """(N,) radii at equal angles -> (N, 2) points (x, y), the first one upwards."""
    angle = start + np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack((radii * np.cos(angle), radii * np.sin(angle)), axis=1)


def _points(*pairs: float) -> np.ndarray:
    return np.asarray(pairs, dtype=np.float64).reshape(-1, 2)


def _cross() -> np.ndarray:
    """A plus sign: one arm, turned four times."""
    arm = _points(-0.36, -1, 0.36, -1, 0.36, -0.36)
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, i) for i in range(4)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack((x / 16, -(y + 2.5) / 15), axis=1)


def _crescent() -> np.ndarray:
    outer = np.linspace(0.28 * np.pi, 1.72 * np.pi, 30)
    inner = outer[::-1]
    return np.concatenate(
        (
            np.stack((np.cos(outer) + 0.18, np.sin(outer)), axis=1),
            np.stack((0.68 * np.cos(inner) + 0.38, 0.76 * np.sin(inner)), axis=1),
        )
    )


def _drop() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack((0.78 * np.sin(t) * np.sin(t / 2) ** 1.3, -np.cos(t)), axis=1)


_DISC = _around(np.ones(40))
# name -> (outline, outline of the hole or None), within about -1..1, y down.
OUTLINES: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
    "circle": (0.95 * _DISC, None),
    "square": (_points(-0.86, -0.86, 0.86, -0.86, 0.86, 0.86, -0.86, 0.86), None),
    "triangle": (_points(0, -1, 0.98, 0.8, -0.98, 0.8), None),
    "star": (_around(np.tile((1.08, 0.48), 5)), None),
    "ring": (_DISC, 0.48 * _DISC),
    "cross": (_cross(), None),
    "heart": (_heart(), None),
    "flower": (_around(0.78 + 0.24 * np.cos(6 * np.linspace(0, 2 * np.pi, 72, endpoint=False))), None),
    "crescent": (_crescent(), None),
    "arrow": (
        _points(-1, -0.3, 0.1, -0.3, 0.1, -0.85, 1.05, 0, 0.1, 0.85, 0.1, 0.3, -1, 0.3),
        None,
    ),
    "bolt": (_points(0.3, -1.05, -0.68, 0.18, -0.08, 0.18, -0.34, 1.05, 0.68, -0.24, 0.08, -0.24), None),
    "drop": (_drop(), None),
}


def transform(size: float, angle: float, stretch: float, shear: float) -> np.ndarray:
    """(2, 2) matrix from outline coordinates to pixels; `size` is the length of -1..1 before it turns."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.array([[stretch**0.5, shear], [0.0, stretch**-0.5]]) * (size / 2)


def coverage(
    outline: np.ndarray, hole: np.ndarray | None, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel a shape covers.

    Returns:
        (h, w) float32 in 0..1, and the shape's origin in it as (x, y) pixels.
    """
    points = outline @ matrix.T
    low = np.floor(points.min(axis=0)) - 1
    width, height = (np.ceil(points.max(axis=0)) + 1 - low).astype(int)
    mask = Image.new("L", (width * _SUPERSAMPLE, height * _SUPERSAMPLE), 0)
    draw = ImageDraw.Draw(mask)
    # PIL's polygon covers the pixels its edge touches; half a pixel less keeps the middle.
    draw.polygon([tuple(p) for p in (points - low) * _SUPERSAMPLE - 0.5], fill=255)
    if hole is not None:
        draw.polygon([tuple(p) for p in (hole @ matrix.T - low) * _SUPERSAMPLE - 0.5], fill=0)
    small = np.asarray(mask.reduce(_SUPERSAMPLE), dtype=np.float32) / 255
    return small, -low
