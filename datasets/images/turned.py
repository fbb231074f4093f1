"""Which images have an EXIF orientation, and how they were read."""

from __future__ import annotations

from logging import INFO, WARNING

import numpy as np
import torch

from datasets.columns import PackedStrings
from datasets.images.exif import UPRIGHT
from datasets.images.preprocess import EncodedImage
from util.logging import get_logger

UNTOLD = "are read as stored, as COCO's tools do, since no size tells"
# (upright, told) of a `View` -> what is said of images with an orientation that are read so.
HOW_READ = {
    (True, True): "are read upright",
    (True, False): "are read upright",
    (False, True): "are read as stored, as their stated sizes say",
    (False, False): UNTOLD,
}
REMEDY = "if boxes fit the upright view, turn the pixels (exiftran -ai, mogrify -auto-orient)"
_KINDS = list(dict.fromkeys(HOW_READ.values()))


class TurnedImages:
    """The images of a dataset that have an EXIF orientation, shared by all worker processes of a loader.

    name: of the dataset, for messages.  file_names: of its images.
    """

    def __init__(self, name: str, file_names: PackedStrings) -> None:
        self._name = name
        self._file_names = file_names
        # Of each image: 0, or 1 + a place in _KINDS.
        self._kinds = torch.zeros(len(file_names), dtype=torch.uint8).share_memory_()
        self._reported = False

    def add(self, image: int, encoded: EncodedImage) -> None:
        """Counts an image that was opened."""
        if encoded.header.orientation != UPRIGHT:
            self._kinds[image] = 1 + _KINDS.index(HOW_READ[encoded.view[1:]])

    def report(self) -> None:
        """Says once how many were met so far and how they are read, in a line for each way."""
        kinds = self._kinds.numpy()
        if self._reported or not kinds.any():
            return
        self._reported = True
        for number, how in enumerate(_KINDS, 1):
            images = np.flatnonzero(kinds == number)
            if len(images):
                get_logger().log(
                    WARNING if how == UNTOLD else INFO,
                    "%s: %d images have an EXIF orientation and %s (first: %s)%s",
                    self._name, len(images), how, self._file_names[int(images[0])],
                    f"; {REMEDY}" if how == UNTOLD else "",
                )  # fmt: skip
