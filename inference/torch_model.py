"""A checkpoint's model as an `ImageModel`: sizes, precision and weights are those of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from config import Config
from datasets.annotations.frequency import group_of
from datasets.augment.policy import EvalPolicy
from datasets.sample import Sample, to_model_input
from engine.device import autocast
from inference.fast import rearranged
from inference.prediction import Prediction, make_prediction
from models.dino.compiled import compile_layers
from models.dino.output import DetectorOutput
from models.richsem.load import TrainedModel
from util.checkpoint import Checkpoint
from util.errors import UserError
from util.pixels import Size
from util.precision import autocast_dtype, choose_precision
from util.structures import PaddedImages

# Pixels that a CPU's batch may have. Together, small images cost half; two of 480x640 cost more than apart
# (benchmarks/inference.py).
CPU_PIXELS = 2**18
PRECISIONS = ("float32", "bfloat16", "float16")


class TorchModel:
    """Runs a trained model on arrays.

    precision: 'float32', 'bfloat16' or 'float16'; None is what the checkpoint was evaluated with. A CPU that
        only emulates bfloat16 computes in float32.
    compiled: the layers of encoder and decoder by torch.compile, within the first images. For a GPU: a CPU
        gains nothing.
    Raises UserError for an unknown precision, and where a compiler is wanted and missing.
    """

    def __init__(
        self,
        trained: TrainedModel,
        checkpoint: Checkpoint,
        config: Config,
        device: torch.device,
        precision: str | None = None,
        compiled: bool = False,
    ) -> None:
        if precision not in (None, *PRECISIONS):
            raise UserError(f"precision {precision!r}: use one of {', '.join(PRECISIONS)}")
        self.trained = trained
        self.config = config
        self.device = device
        self.class_names = trained.class_names
        self.frequencies = class_frequencies(checkpoint, trained.columns)
        fixed = checkpoint.run.get("fix_size", False)
        self.policy = EvalPolicy(max(config.data_aug_scales), config.data_aug_max_size, fixed_size=fixed)
        if precision is None:
            self._dtype = choose_precision(config.amp, config.amp_dtype, device).dtype
        else:
            self._dtype = None if precision == "float32" else autocast_dtype(precision, device)
        on_cpu = device.type == "cpu" and self._dtype is None
        self._network = rearranged(trained.model) if on_cpu else trained.model
        if compiled:
            compile_layers(self._network, device)

    def detect(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """As `ImageModel.detect`. Raises UserError for scores that are not finite.

        A CPU sees fewer at a time where they are large.
        """
        sizes = [pixels.shape[:2] for pixels in images]
        step = len(images)
        if self.device.type == "cpu":
            largest = max(height * width for height, width in map(self.policy.target, sizes))
            step = max(1, CPU_PIXELS // largest)
        found: list[Prediction] = []
        for start in range(0, len(images), step):
            batch = slice(start, start + step)
            found += self.predictions(self.output(self.prepare(images[batch])), sizes[batch])
        return found

    def prepare(self, images: Sequence[np.ndarray]) -> PaddedImages:
        """One batch of (H, W, 3) uint8 RGB images as the network takes it, on the device."""
        resized = [self._resized(pixels) for pixels in images]
        return PaddedImages.from_list(resized, self.config.pad_size_divisor).to(self.device).normalised()

    @torch.inference_mode()
    def output(self, images: PaddedImages) -> DetectorOutput:
        """What the network says of a prepared batch."""
        with autocast(self.device, self._dtype):
            return self._network(images)

    def predictions(self, output: DetectorOutput, sizes: Sequence[Size]) -> list[Prediction]:
        """All detections of each image, best first. sizes: (height, width) of each as it was given."""
        found = [d.to("cpu") for d in self.trained.postprocess(output, sizes)]
        return [
            make_prediction(self.class_names, d.scores.numpy(), d.labels.numpy(), d.boxes_xyxy.numpy(), size)
            for d, size in zip(found, sizes, strict=True)
        ]

    def _resized(self, pixels: np.ndarray) -> torch.Tensor:
        """(H, W, 3) uint8 -> (3, h, w) uint8 as evaluation sees it."""
        sample = Sample.from_arrays(pixels, torch.zeros(0, 4), torch.zeros(0))
        # Evaluation draws no random numbers.
        return to_model_input(self.policy(sample, np.random.default_rng(0)), 0, pixels.shape[:2])[0]


def class_frequencies(checkpoint: Checkpoint, columns: Sequence[int]) -> tuple[str, ...]:
    """'r', 'c' or 'f' for each class as the data says, else by LVIS's cuts of its training images.

    columns: the trained column of each class. '' where neither is known, and for an untrained one, -1.
    """
    said, counts = checkpoint.frequencies, checkpoint.image_counts

    def frequency(column: int) -> str:
        if column < 0:
            return ""
        return group_of(said[column] if said else "", counts[column] if counts else None)

    return tuple(frequency(column) for column in columns)
