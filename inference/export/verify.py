"""An exported file against the checkpoint it was made from, on the same network inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.images.preprocess import NetworkInput
from inference.export.compare import Comparison, Tolerance, compare, set_threshold
from inference.export.exported_model import ExportedModel, graph_inputs
from inference.export.graph import padding_mask
from inference.export.info import Precision
from inference.inputs import read_image
from inference.prediction import Prediction, make_prediction
from models.richsem.load import TrainedModel
from util.structures import PaddedImages

# Detections of a set that are compared at least, whatever their score.
AT_LEAST = 100
THRESHOLD = 0.05
TOLERANCE: dict[Precision, Tolerance] = {
    "float32": Tolerance(box=0.05, score=1e-4),
    "float16": Tolerance(box=8.0, score=0.05),
}
_TIMED_RUNS = 7


@dataclass
class Ranking:
    """How the runtimes' order of the encoder's proposals differs.

    moved:  queries that another proposal has, or another rank.
    gap:    the largest difference of two scores, 0..1, that stand in the other order in PyTorch.
    """

    moved: int = 0
    queries: int = 0
    gap: float = 0.0


@dataclass
class Verification:
    """detections: one to one.  ranking: of proposals.  threshold: the lowest score compared, of the set."""

    detections: Comparison
    ranking: Ranking
    tolerance: Tolerance
    threshold: float = THRESHOLD
    images: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """`verified: ...` or `NOT VERIFIED: ...`."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            return f"NOT VERIFIED: {self.faults[0]}{more}"
        found = self.detections
        return (
            f"verified: worst box {found.worst_box:.2g} px, worst score {found.worst_score:.2g} "
            f"over {found.pairs} detections"
        )


@torch.inference_mode()
def follow(
    trained: TrainedModel, batch: NetworkInput, proposals: np.ndarray, ranking: Ranking
) -> list[Prediction]:
    """The checkpoint's detections where its queries are the tokens `proposals` (B, Q), in that order.

    The order of proposals decides which learned query each gets, and two runtimes round differently: where
    scores are as good as equal, either order is right. What follows from it is not small, so the
    checkpoint follows the file's order. `ranking` says how far that order is from its own.
    """
    selections = trained.model.selections
    chosen = dict(zip(selections, torch.from_numpy(proposals).chunk(len(selections), dim=1), strict=True))

    def choose(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        scores = module.ranking(arguments[0]).sigmoid()
        _add_ranking(scores, chosen[module], ranking)
        return arguments, {**named, "proposals": chosen[module]}

    with ExitStack() as stack:
        for selection in selections:
            hook = selection.register_forward_pre_hook(choose, with_kwargs=True)
            stack.callback(hook.remove)
        return plain(trained, batch)


@torch.inference_mode()
def plain(trained: TrainedModel, batch: NetworkInput) -> list[Prediction]:
    """The checkpoint's detections."""
    inputs = {name: torch.from_numpy(array) for name, array in graph_inputs(batch).items()}
    mask = padding_mask(inputs["images"], inputs["sizes"])
    output = trained.model(PaddedImages(inputs["images"], mask, batch.sizes))
    return [
        make_prediction(trained.class_names, d.scores.numpy(), d.labels.numpy(), d.boxes_xyxy.numpy(), size)
        for d, size in zip(
            trained.postprocess(output, batch.original_sizes), batch.original_sizes, strict=True
        )
    ]


def _add_ranking(scores: Tensor, chosen: Tensor, ranking: Ranking) -> None:
    """scores (B, S) of all tokens in PyTorch, chosen (B, Q) by the file."""
    own = scores.topk(chosen.shape[1], dim=1)
    taken = scores.gather(1, chosen)
    ranking.moved += int((own.indices != chosen).sum())
    ranking.queries += chosen.numel()
    # A valid order: each score is at least as high as every later one, and as that of any token not taken.
    rest = scores.scatter(1, chosen, -1).amax(1, keepdim=True)
    later = torch.cat((taken, rest), 1).flip(1).cummax(1).values.flip(1)[:, 1:]
    ranking.gap = max(ranking.gap, float((later - taken).max()))


def verify(
    trained: TrainedModel,
    exported: ExportedModel,
    images: Sequence[Path],
    best: int | None = None,
) -> Verification:
    """Compares all detections of a score of at least 0.05, and at least AT_LEAST of the set.

    best: compare so many of every image instead, whatever their score.
    """
    tolerance = TOLERANCE[exported.info.precision]
    result = Verification(Comparison(), Ranking(), tolerance)
    pairs = []
    for files, batch in _batches(exported, images):
        outputs = exported.run(batch)
        expected = follow(trained, batch, outputs[3], result.ranking)
        found = exported.predictions(outputs, batch)
        named = ((replace(e, file=f.name), d) for e, d, f in zip(expected, found, files, strict=True))
        pairs += list(named)
    result.images = len(pairs)
    result.threshold = set_threshold([e for e, _ in pairs], THRESHOLD, AT_LEAST)
    for e, d in pairs:
        threshold = result.threshold if best is None else float(e.scores[min(best, len(e)) - 1])
        compare(e, d, threshold, tolerance, result.detections)
    result.faults += result.detections.faults
    if result.ranking.gap > tolerance.score:
        result.faults.append(
            f"the file ranks a proposal {result.ranking.gap:.2g} (score) too high; {tolerance.score} is a tie"
        )
    if result.detections.pairs < AT_LEAST:
        result.faults.append(f"only {result.detections.pairs} detections compared; give more images")
    return result


def _batches(
    exported: ExportedModel, images: Sequence[Path]
) -> Iterator[tuple[Sequence[Path], NetworkInput]]:
    """The images one and two at a time, in turns: the graph takes any number."""
    start, size = 0, 1
    while start < len(images):
        files = images[start : start + size]
        yield files, exported.info.preprocess([read_image(f)[0] for f in files])
        start, size = start + size, 3 - size


def latencies(
    trained: TrainedModel, exported: ExportedModel, image: Path, runs: int = _TIMED_RUNS
) -> tuple[float, float]:
    """Seconds for one image, the network alone, on this CPU: (checkpoint, exported file), medians of
    interleaved runs after one of each to warm up."""
    batch = exported.info.preprocess([read_image(image)[0]])
    sides: tuple[Callable[[], Any], ...] = (lambda: plain(trained, batch), lambda: exported.run(batch))
    times: tuple[list[float], ...] = ([], [])
    for turn in range(runs + 1):
        for side, taken in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            if turn:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])
