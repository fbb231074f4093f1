"""What the runners of exported files share. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from datasets.images.preprocess import NetworkInput
from inference.export.info import INPUTS, ExportInfo
from inference.prediction import Prediction, make_prediction


class ExportedModel(ABC):
    """An `ImageModel` whose network is the graph of an exported file."""

    def __init__(self, info: ExportInfo) -> None:
        self.info = info
        self.class_names = info.class_names
        self.frequencies = info.frequencies

    def detect(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """As `ImageModel.detect`. Raises UserError for scores that are not finite."""
        batch = self.info.preprocess(images)
        return self.predictions(self.run(batch), batch)

    def predictions(self, outputs: Sequence[np.ndarray], batch: NetworkInput) -> list[Prediction]:
        """The graph's outputs as detections."""
        scores, labels, boxes = outputs[:3]
        return [
            make_prediction(self.class_names, scores[i], labels[i], boxes[i], size)
            for i, size in enumerate(batch.original_sizes)
        ]

    @abstractmethod
    def run(self, batch: NetworkInput) -> list[np.ndarray]:
        """The graph's OUTPUTS."""


def graph_inputs(batch: NetworkInput) -> dict[str, np.ndarray]:
    """The graph's INPUTS."""
    sizes = (np.array(s, np.int64).reshape(-1, 2) for s in (batch.sizes, batch.original_sizes))
    return dict(zip(INPUTS, (batch.images, *sizes), strict=True))
