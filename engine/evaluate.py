"""The evaluation loop and the metrics table."""

import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from engine.device import autocast, to_device
from engine.protocols import Evaluator, Loader, Postprocess
from engine.run_log import progress_bar
from engine.settings import TrainSettings
from util import distributed
from util.structures import Batch, Detections

# Batches between two checks of several ranks, which wait for one another there.
CHECK_EVERY = 8


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    postprocess: Postprocess,
    evaluator: Evaluator,
    settings: TrainSettings,
    check: Callable[[], None] | None = None,
) -> dict[str, float] | None:
    """Runs the model over the loader and returns the evaluator's metrics (None on ranks above 0).

    Called on every rank. The model is left in evaluation mode.
    check: called on every rank after the same batches, also where a rank has none left; what it raises ends
        the evaluation.
    """
    model.eval()
    iterations = settings.iterations(len(loader))
    every = CHECK_EVERY if distributed.is_distributed() else 1
    # A rank may have one batch more than another.
    most = max(distributed.all_gather_object(iterations)) if check is not None else iterations
    batches = islice(loader, iterations)
    with progress_bar("evaluate", iterations) as bar:
        for number in range(most):
            if check is not None and number % every == 0:
                check()
            if (batch := next(batches, None)) is None:
                continue
            evaluator.update(batch[1].image_ids, detect(model, batch, postprocess, settings))
            bar.update()
    return evaluator.finish()


def detect(
    model: nn.Module, batch: Batch, postprocess: Postprocess, settings: TrainSettings
) -> list[Detections]:
    """What the model finds in each image of a batch, on the CPU."""
    images, targets = to_device(batch, settings.device)
    with autocast(settings.device, settings.autocast_dtype):
        output = model(images)
    return [d.to("cpu") for d in postprocess(output, targets.original_sizes)]


def metrics_table(metrics: Mapping[str, float]) -> str:
    """One line per metric in the evaluator's order, `NAME VALUE` on the scale 0..100; - where undefined.

    Four decimals: equal lines mean the same detections for every practical purpose.
    """
    width = max(8, *(len(name) + 1 for name in metrics)) if metrics else 8
    return "\n".join(f"{name:<{width}}{percent(value):>9}" for name, value in metrics.items())


def report_metrics(metrics: Mapping[str, float], path: Path) -> None:
    """Prints the table, and writes the metrics in full precision as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(metrics), indent=1) + "\n", encoding="utf-8")
    print(metrics_table(metrics), flush=True)


def percent(value: float | None) -> str:
    """A metric on the scale 0..100; - where it is undefined (below 0 or None)."""
    return "-" if value is None or value < 0 else f"{100.0 * value:.4f}"
