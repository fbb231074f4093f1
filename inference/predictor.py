"""The object that users hold: images in, named boxes out. Needs no torch by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from inference.inputs import ImageInput, find_images, read_image
from inference.prediction import Prediction
from inference.protocols import ImageModel
from inference.thresholds import DEFAULT_SCORE, Score, class_thresholds
from inference.tiles import Tiling, detect_tiled

Tile = int | tuple[int, float]
"""A tile's side in pixels, or the side and the overlap of neighbours as a part of it."""


class Predictor:
    """A trained detector.

    model: runs the network.
    score: the lowest score that is kept: a number, or numbers by class name and by 'rare', 'common',
        'frequent' and 'others'.
    tile:  images larger than this, pixels a side, are also seen in tiles that overlap by a fifth of it;
        `(800, 0.3)` says the overlap too, see `Tiling`. None sees images whole.
    Raises UserError for scores that do not fit the model's classes, and for an unfit tile.
    """

    def __init__(self, model: ImageModel, score: Score = DEFAULT_SCORE, tile: Tile | None = None) -> None:
        self.model = model
        self.tiling = _tiling(tile)
        self._thresholds = class_thresholds(score, model.class_names, model.frequencies)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that labels refer to."""
        return self.model.class_names

    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        score: Score | None = None,
        tile: Tile | None = None,
        batch_size: int = 1,
    ) -> Prediction | list[Prediction]:
        """One image gives one prediction; a folder, a list, or a batch tensor (B, 3, H, W) gives a list.

        images: paths, PIL images, (H, W, 3) uint8 RGB arrays, or (3, H, W) tensors of uint8 or of floats
            in 0..1.
        score, tile: in place of the predictor's own.
        Raises ImageError for an image that cannot be read, UserError for any other unfit input.
        """
        if isinstance(images, (str, Path)) and Path(images).is_dir():
            images = find_images([Path(images)])
        if isinstance(images, (list, tuple, Iterator)) or getattr(images, "ndim", 0) == 4:
            return list(self.stream(images, score=score, tile=tile, batch_size=batch_size))
        return next(self.stream([images], score=score, tile=tile))

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        score: Score | None = None,
        tile: Tile | None = None,
        batch_size: int = 1,
    ) -> Iterator[Prediction]:
        """A prediction for each image, in their order; `batch_size` images are in memory at a time.

        The network sees those of one size together: padding would change what it finds a little.
        """
        tiling = self.tiling if tile is None else _tiling(tile)
        thresholds = self._thresholds_of(score)
        remaining = iter(images)
        while batch := [read_image(image) for image in islice(remaining, batch_size)]:
            arrays = [pixels for pixels, _ in batch]
            predictions = self._predict(arrays, thresholds, tiling, batch_size)
            for found, (_, file) in zip(predictions, batch, strict=True):
                yield replace(found, file=file)

    def detect(self, images: Sequence[np.ndarray], score: Score | None = None) -> list[Prediction]:
        """As `stream`, for one batch of upright (H, W, 3) uint8 RGB arrays."""
        return self._predict(images, self._thresholds_of(score), self.tiling, max(1, len(images)))

    def _thresholds_of(self, score: Score | None) -> np.ndarray:
        """(C,) the lowest score of each class; the predictor's own for None."""
        if score is None:
            return self._thresholds
        return class_thresholds(score, self.class_names, self.model.frequencies)

    def _predict(
        self, images: Sequence[np.ndarray], thresholds: np.ndarray, tiling: Tiling | None, batch_size: int
    ) -> list[Prediction]:
        """The detections of each image that reach their class's threshold."""
        found: dict[int, Prediction] = {}
        for size in dict.fromkeys(image.shape for image in images):
            rows = [row for row, image in enumerate(images) if image.shape == size]
            same = [images[row] for row in rows]
            if tiling is None:
                predictions = self.model.detect(same)
            else:
                predictions = detect_tiled(self.model, same, tiling, batch_size)
            kept = [p.select(p.scores >= thresholds[p.labels]) for p in predictions]
            found.update(zip(rows, kept, strict=True))
        return [found[row] for row in range(len(images))]


def _tiling(tile: Tile | None) -> Tiling | None:
    if tile is None:
        return None
    return Tiling(*tile) if isinstance(tile, tuple) else Tiling(tile)
