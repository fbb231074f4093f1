"""What runs a network: PyTorch behind a checkpoint, or an exported file. Needs no torch."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from inference.prediction import Prediction


@runtime_checkable
class ImageModel(Protocol):
    """A detector of C classes.

    class_names: of its C columns.
    frequencies: 'r', 'c' or 'f' for each, '' where it is not known.
    """

    class_names: tuple[str, ...]
    frequencies: tuple[str, ...]

    def detect(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """One batch of (H, W, 3) uint8 RGB images -> all detections of each, best first, of any score."""
        ...
