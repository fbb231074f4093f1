"""Composes an image from things, back to front, and knows which pixel shows which thing."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .backgrounds import draw_background, smooth_noise
from .things import Patch, draw_clutter, draw_kind, lookalike
from .vocabulary import Kind

# Things are not annotated if less than this share of them is visible.
MIN_VISIBLE = 0.3
_MAX_TRIES = 12


@dataclass(frozen=True)
class Visible:
    """A thing in an image. mask: (height, width) bool, its visible pixels.  share: of all its pixels."""

    kind: Kind
    mask: np.ndarray
    share: float


@dataclass(frozen=True)
class Thing:
    """A thing to place. middle: (x, y) pixels, None for anywhere."""

    kind: Kind
    size: float
    middle: tuple[float, float] | None = None


# Slices of the canvas and of the patch.
Window = tuple[tuple[slice, slice], tuple[slice, slice]]


class Canvas:
    """An image that things are pasted on. `owner` holds each pixel's thing: 0 for none."""

    def __init__(self, rng: Generator, height: int, width: int):
        self.rng = rng
        self.image = draw_background(rng, height, width)
        self.owner = np.zeros((height, width), dtype=np.int16)

    def window(self, patch: Patch, middle: tuple[float, float]) -> Window | None:
        """Slices (of the canvas, of the patch) where the two overlap; None where they do not."""
        height, width = self.owner.shape
        x, y = round(middle[0] - patch.middle[0]), round(middle[1] - patch.middle[1])
        h, w = patch.alpha.shape
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if x0 >= x1 or y0 >= y1:
            return None
        return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]

    def paste(self, patch: Patch, window: Window, number: int) -> None:
        on_canvas, on_patch = window
        alpha = patch.alpha[on_patch]
        below = self.image[on_canvas]
        below += alpha[..., None] * (patch.colour[on_patch] - below)
        self.owner[on_canvas][alpha > 0.5] = number

    def shadow(self, patch: Patch, middle: tuple[float, float], strength: float) -> None:
        dx, dy = self.rng.uniform(1, 4, 2)
        window = self.window(patch, (middle[0] + dx, middle[1] + dy))
        if window:
            self.image[window[0]] *= 1 - strength * patch.alpha[window[1]][..., None]

    def anywhere(self) -> tuple[float, float]:
        height, width = self.owner.shape
        return self.rng.uniform(0.02, 0.98) * width, self.rng.uniform(0.02, 0.98) * height


def _hides_too_much(canvas: Canvas, patch: Patch, window: Window, full: Sequence[int]) -> bool:
    """Whether pasting here would leave too little visible of an earlier thing, or of this one."""
    covers = patch.alpha[window[1]] > 0.5
    if covers.sum() < (MIN_VISIBLE + 0.25) * (patch.alpha > 0.5).sum():
        return True
    under, counts = np.unique(canvas.owner[window[0]][covers], return_counts=True)
    for number, hidden in zip(under, counts, strict=True):
        left = (canvas.owner == number).sum() - hidden
        if number > 0 and left < (MIN_VISIBLE + 0.08) * full[number]:
            return True
    return False


def compose(
    rng: Generator,
    height: int,
    width: int,
    things: Sequence[Thing],
    clutter: int,
    lookalikes: int,
    classes: Container[Kind] = (),
) -> tuple[np.ndarray, list[Visible]]:
    """Draws a scene. classes: what lookalikes must not be.

    Returns:
        (height, width, 3) uint8, and those of `things` of which a pixel can be seen.
    """
    canvas = Canvas(rng, height, width)
    scale = min(height, width)
    for _ in range(clutter):
        patch = draw_clutter(scale * rng.uniform(0.08, 0.4), rng)
        if window := canvas.window(patch, middle := canvas.anywhere()):
            canvas.shadow(patch, middle, 0.3)
            canvas.paste(patch, window, 0)
    extra = [Thing(lookalike(rng, classes), scale * rng.uniform(0.12, 0.32)) for _ in range(lookalikes)]
    # Number 0 is "no thing", so lists that are indexed by number start with a filler.
    placed = [*things, *extra]
    # Larger things mostly lie behind smaller ones, as nearer ones would hide the scene.
    order = np.argsort([-t.size * rng.uniform(0.6, 1.5) for t in placed])
    full = [0] * (len(placed) + 1)
    for index in order:
        _place(canvas, placed[index], int(index) + 1, full)
    _occlude(canvas, full)
    visible = []
    for number, thing in enumerate(things, start=1):
        mask = canvas.owner == number
        if mask.any():
            visible.append(Visible(thing.kind, mask, float(mask.sum() / full[number])))
    return _develop(rng, canvas.image), visible


def _place(canvas: Canvas, thing: Thing, number: int, full: list[int]) -> None:
    """Pastes a thing where it hides little enough, else at the last place tried."""
    patch = draw_kind(thing.kind, thing.size, canvas.rng)
    full[number] = int((patch.alpha > 0.5).sum())
    for _ in range(_MAX_TRIES):
        middle = thing.middle or canvas.anywhere()
        window = canvas.window(patch, middle)
        if window and not _hides_too_much(canvas, patch, window, full):
            break
    if window:
        canvas.shadow(patch, middle, canvas.rng.uniform(0.1, 0.5))
        canvas.paste(patch, window, number)


def _occlude(canvas: Canvas, full: Sequence[int]) -> None:
    """Things in front that belong to no class."""
    rng = canvas.rng
    scale = min(canvas.owner.shape)
    for _ in range(rng.integers(0, 3)):
        patch = draw_clutter(scale * rng.uniform(0.1, 0.3), rng)
        window = canvas.window(patch, middle := canvas.anywhere())
        if window and not _hides_too_much(canvas, patch, window, full):
            canvas.shadow(patch, middle, 0.25)
            canvas.paste(patch, window, 0)


def _develop(rng: Generator, image: np.ndarray) -> np.ndarray:
    """The camera: uneven light, tint, contrast, noise."""
    height, width = image.shape[:2]
    light = 1 + 0.13 * smooth_noise(rng, height, width, 2)
    contrast = np.float32(rng.uniform(0.75, 1.12))
    image = image * (light[..., None] * (contrast * rng.normal(1, 0.05, 3)).astype(np.float32))
    image += np.float32(118 * (1 - contrast) + rng.normal(0, 10))
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 7))
    return np.clip(image, 0, 255).astype(np.uint8)
