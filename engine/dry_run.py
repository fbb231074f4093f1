"""What a run would take: memory and time, forecast from a few steps."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from engine.device import peak_memory
from engine.evaluate import detect
from engine.fit import Validation
from engine.protocols import Loader
from engine.run_log import duration
from engine.settings import TrainSettings
from engine.state import TrainingState
from engine.train_epoch import Task, TrainStep
from util import distributed
from util.errors import UserError
from util.structures import Batch

WARM_UP = 2
# Divisible by the usual cycles of the two streams, whose batches differ in size.
MEASURED = 12
# Slow steps are measured for so many seconds, but at least FEWEST of them.
ENOUGH_SECONDS = 90.0
FEWEST = 4


@dataclass(frozen=True)
class Pace:
    """Seconds of a batch, with what it waited for its data among them, over `steps` batches."""

    seconds: float
    waited: float
    steps: int


@dataclass(frozen=True)
class Forecast:
    """train, evaluation: their pace.  crowded: seconds of a step with the worst batch.

    boxes, canvas: of the worst batch: most boxes of an image, (height, width) in pixels.
    train_bytes, eval_bytes: peak memory of the rank that needs most; on a CPU that of both, since there it
        cannot be taken back.
    epochs, evaluations: that are left.
    """

    train: Pace
    evaluation: Pace
    crowded: float
    boxes: int
    canvas: tuple[int, int]
    train_bytes: int
    eval_bytes: int
    train_batches: int
    eval_batches: int
    epochs: int
    evaluations: int
    device: torch.device

    @property
    def epoch_seconds(self) -> float:
        return self.train.seconds * self.train_batches

    @property
    def eval_seconds(self) -> float:
        """Of one evaluation, without computing the metrics."""
        return self.evaluation.seconds * self.eval_batches

    @property
    def total_seconds(self) -> float:
        return self.epoch_seconds * self.epochs + self.eval_seconds * self.evaluations

    def table(self) -> str:
        """A few lines for people."""
        rows = [
            ("training step", _pace(self.train)),
            ("worst batch", f"{self.crowded:.3f} s: {self.boxes} boxes in an image, {self._canvas()} pixels"),
            ("evaluation step", _pace(self.evaluation)),
            ("peak memory", self._memory()),
            ("one epoch", f"{duration(self.epoch_seconds)} for {self.train_batches} batches"),
            (
                "one evaluation",
                f"{duration(self.eval_seconds)} for {self.eval_batches} batches, then its metrics",
            ),
            (
                "in all",
                f"{duration(self.total_seconds)} for {self.epochs} epochs and {self.evaluations} evaluations",
            ),
        ]
        return "\n".join(f"{name:<16}{text}" for name, text in rows)

    def _canvas(self) -> str:
        return f"{self.canvas[0]}x{self.canvas[1]}"

    def _memory(self) -> str:
        if self.device.type != "cuda":
            return f"{self.eval_bytes / 2**30:.2f} GiB resident, without the loader processes"
        text = f"{self.train_bytes / 2**30:.2f} GiB in training, {self.eval_bytes / 2**30:.2f} in evaluation"
        total = torch.cuda.get_device_properties(self.device).total_memory
        return f"{text}, allocated; the GPU has {total / 2**30:.1f}"


def _pace(pace: Pace) -> str:
    return f"{pace.seconds:.3f} s, {pace.waited:.3f} of it waiting for data (mean of {pace.steps})"


def make_forecast(
    task: Task,
    state: TrainingState,
    train_loader: Loader,
    worst_batch: Batch,
    validation: Validation,
    settings: TrainSettings,
    prefetched: int = 0,
) -> Forecast:
    """Trains a few batches and the worst one, evaluates a few; called on every rank. The weights change.

    worst_batch: what needs most memory in training.
    prefetched: batches that the loader has ready before the first step, which would hide how slow it is.
    Raises UserError where a GPU has too little memory.
    """
    with _enough_memory("training", "batch_size or data_aug_scales, or set amp=True"):
        iterations = settings.iterations(len(train_loader))
        step = TrainStep(task, state, settings, iterations)
        train_loader.set_epoch(state.epoch)
        task.model.train()
        train = _measure(train_loader, iterations, prefetched, settings, step)
        # Twice: the first time includes finding kernels and memory of these sizes.
        for _ in range(2):
            started = _now(settings)
            step(settings.accumulate_steps - 1, worst_batch)
            crowded = _now(settings) - started
    train_bytes = _peak(settings)
    if settings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(settings.device)
    with _enough_memory("evaluation", "eval_batch_size"):
        evaluation = _evaluate(state, validation, settings, prefetched)
    images, targets = worst_batch
    left = range(state.epoch + 1, settings.epochs + 1)
    return Forecast(
        train=train,
        evaluation=evaluation,
        crowded=crowded,
        boxes=max(targets.counts),
        canvas=(images.tensor.shape[-2], images.tensor.shape[-1]),
        train_bytes=train_bytes,
        eval_bytes=_peak(settings),
        train_batches=iterations,
        eval_batches=settings.iterations(len(validation.loader)),
        epochs=len(left),
        evaluations=sum(settings.evaluates_after(epoch) for epoch in left),
        device=settings.device,
    )


@torch.inference_mode()
def _evaluate(state: TrainingState, validation: Validation, settings: TrainSettings, prefetched: int) -> Pace:
    model = state.evaluated_model.eval()

    def step(_: int, batch: Batch) -> None:
        detect(model, batch, validation.postprocess, settings)

    iterations = settings.iterations(len(validation.loader))
    return _measure(validation.loader, iterations, prefetched, settings, step)


def _measure(
    loader: Loader,
    iterations: int,
    prefetched: int,
    settings: TrainSettings,
    step: Callable[[int, Batch], object],
) -> Pace:
    """The mean over some batches after a warm-up that uses up what was prefetched."""
    # A rank may have one evaluation batch more than another.
    iterations = min(distributed.all_gather_object(iterations))
    warm_up = min(WARM_UP + prefetched, iterations // 2)
    waited, steps = 0.0, 0
    started = done = _now(settings)
    for iteration, batch in enumerate(islice(loader, iterations)):
        waited += time.perf_counter() - done
        step(iteration, batch)
        steps += 1
        done = _now(settings)
        if iteration + 1 == warm_up:
            started, waited, steps = done, 0.0, 0
        enough = steps >= FEWEST and done - started > ENOUGH_SECONDS
        # Ranks step together, so they stop together.
        if distributed.broadcast_object(iteration >= warm_up and (steps == MEASURED or enough)):
            break
    return Pace((done - started) / steps, waited / steps, steps)


def _now(settings: TrainSettings) -> float:
    if settings.device.type == "cuda":
        torch.cuda.synchronize(settings.device)
    return time.perf_counter()


def _peak(settings: TrainSettings) -> int:
    return max(distributed.all_gather_object(peak_memory(settings.device)))


@contextmanager
def _enough_memory(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"dry run: the GPU has too little memory for {what}: lower {remedy}") from error
