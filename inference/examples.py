"""Example images of classes that a model was not trained on: read, and made into rows of its classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from datasets.annotations.discovery import open_examples
from datasets.annotations.table import AnnotationTable
from datasets.annotations.words import match_words
from datasets.images.reader import ImageFolder
from inference.torch_model import TorchModel
from models.richsem.examples import ExampleImage, fit_examples
from models.richsem.vocabulary import NewRows
from util.errors import UserError
from util.logging import get_logger

# Of each class; the first ones.
MOST_IMAGES = 50
# An image without boxes is shown in the middle of its mean colour, so many times its size: objects rarely
# fill the images that a model is used on.
CANVAS = 3
_MIDDLE = (0.5, 0.5, 1 / CANVAS, 1 / CANVAS)


@dataclass(frozen=True)
class Examples:
    """A folder of example images: box-annotated data, or a folder of images per class, each one whole box."""

    path: str
    table: AnnotationTable
    images: ImageFolder

    @classmethod
    def open(cls, path: str) -> Examples:
        """Raises UserError for a path without examples."""
        return cls(path, *open_examples(path))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.table.categories)

    def categories_of(self, words: Sequence[str]) -> tuple[int, ...]:
        """For every word the class of the examples that it names, -1 where none. Raises as `match_words`."""
        return match_words(words, self.names, self.table.categories)

    def rows(self, model: TorchModel, wanted: Sequence[int]) -> NewRows:
        """A row for each of the `wanted` classes. Raises UserError for one without images."""
        chosen = self._choose(wanted)
        rows = fit_examples(
            model.trained.model,
            lambda: self._read(model, chosen, wanted),
            len(wanted),
            one_class_encoder=model.config.enc_cls_agn,
        )
        get_logger().info("%s: rows of %d classes from %d images", self.path, len(wanted), len(chosen))
        return rows

    def _choose(self, wanted: Sequence[int]) -> list[int]:
        """The images of the wanted classes, the first `MOST_IMAGES` of each."""
        shown = [set(self._labels(i).tolist()) for i in range(len(self.table))]
        chosen: set[int] = set()
        for category in wanted:
            images = [i for i, labels in enumerate(shown) if category in labels]
            if not images:
                raise UserError(f"{self.path}: has no example of {self.names[category]!r}")
            chosen.update(images[:MOST_IMAGES])
        return sorted(chosen)

    def _is_whole(self, image: int) -> bool:
        """Whether an image has no boxes."""
        return bool(self.table.box_offsets[image] == self.table.box_offsets[image + 1])

    def _labels(self, image: int) -> np.ndarray:
        """The category of every box of an image, of the whole image where it has none."""
        if self._is_whole(image):
            return self.table.positives[image]
        first, last = self.table.box_offsets[image : image + 2]
        return self.table.category_index[first:last][~self.table.crowd[first:last]]

    def _boxes(self, image: int, pixels: np.ndarray) -> np.ndarray:
        """(N, 4) cxcywh in 0..1, of `_labels`."""
        if self._is_whole(image):
            return np.array([_MIDDLE] * len(self.table.positives[image]))
        first, last = self.table.box_offsets[image : image + 2]
        xywh = self.table.boxes_xywh[first:last][~self.table.crowd[first:last]]
        height, width = pixels.shape[:2]
        centres = xywh[:, :2] + xywh[:, 2:] / 2
        return np.concatenate((centres, xywh[:, 2:]), axis=1) / (width, height, width, height)

    def _read(
        self, model: TorchModel, chosen: Sequence[int], wanted: Sequence[int]
    ) -> Iterator[ExampleImage]:
        row_of = {category: row for row, category in enumerate(wanted)}
        for image in chosen:
            pixels = self.images.read(self.table.file_names[image])
            if self._is_whole(image):
                pixels = on_canvas(pixels)
            labels = [row_of.get(int(category), -1) for category in self._labels(image)]
            kept = [i for i, label in enumerate(labels) if label >= 0]
            yield ExampleImage(
                model.prepare([pixels]),
                torch.from_numpy(self._boxes(image, pixels)[kept]).float(),
                torch.tensor([labels[i] for i in kept], dtype=torch.int64),
            )


def on_canvas(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) in the middle of (CANVAS * H, CANVAS * W, 3) of its mean colour."""
    height, width = pixels.shape[:2]
    canvas = np.empty((CANVAS * height, CANVAS * width, 3), np.uint8)
    canvas[:] = pixels.reshape(-1, 3).mean(0).round()
    top, left = (CANVAS - 1) * height // 2, (CANVAS - 1) * width // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas
