"""One epoch of training."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from engine.accumulate import (
    fill_missing_gradients,
    maybe_no_sync,
    micro_batches_in_step,
    touch_all_parameters,
)
from engine.device import autocast, peak_memory, to_device
from engine.freeze import hold_frozen_statistics
from engine.loss_buffer import BatchOrigin, NonFinite, NonFiniteError
from engine.nonfinite import MOST_SKIPPED
from engine.protocols import Criterion, Loader, Teacher
from engine.random_state import model_random_state
from engine.run_log import RunLog, progress_bar, step_line
from engine.schedule import go_to_step
from engine.settings import TrainSettings
from engine.state import TrainingState
from util import distributed
from util.errors import UserError
from util.structures import Batch, Losses

_log = logging.getLogger(__name__)

KeepBatch = Callable[[NonFinite, Batch], None]


@dataclass(frozen=True)
class Task:
    """What is trained.

    model: called as model(images, targets); wrapped in DistributedDataParallel where there are several ranks.
    criterion: called outside mixed precision.  teacher: None when nothing is distilled.
    """

    model: nn.Module
    criterion: Criterion
    teacher: Teacher | None = None

    def losses(self, batch: Batch, device: torch.device, autocast_dtype: torch.dtype | None) -> Losses:
        """Of a batch from the loader, which goes to the device first."""
        images, targets = to_device(batch, device)
        semantic = None
        with autocast(device, autocast_dtype):
            if self.teacher is not None:
                with torch.no_grad():
                    semantic = self.teacher(images, targets)
            output = self.model(images, targets)
        return self.criterion(output, targets, semantic)


def train_one_epoch(
    task: Task,
    state: TrainingState,
    loader: Loader,
    settings: TrainSettings,
    log: RunLog | None = None,
    after_step: Callable[[], None] | None = None,
    keep: KeepBatch | None = None,
) -> dict[str, float]:
    """Trains what is left of epoch `state.epoch` and returns the mean losses over all of its steps and ranks,
    `total` among them.

    after_step: called after every optimizer step but the last. What it raises ends the epoch there.
    keep: called with each batch that is skipped because it is not finite.
    Raises NonFiniteError, on every rank alike, soon after a loss was not finite and is not to be skipped.
    """
    loader.set_epoch(state.epoch, state.iteration)
    task.model.train()
    hold_frozen_statistics(state.model)
    first = state.iteration
    if not first:
        state.begin_epoch()
    iterations = settings.iterations_left(len(loader), first, state.step)
    started = time.perf_counter() - state.progress.seconds
    train_step = TrainStep(task, state, settings, iterations, keep)
    step_logger = StepLogger(state, settings, iterations, log)
    with progress_bar(f"epoch {state.epoch + 1}/{settings.epochs}", iterations, first) as bar:
        arrived = time.perf_counter()
        for iteration, batch in enumerate(islice(loader, iterations - first), start=first):
            waited = time.perf_counter() - arrived
            losses = train_step(iteration, batch)
            state.iteration = iteration + 1
            step_logger.add(train_step.origin, losses, waited)
            state.progress.seconds = time.perf_counter() - started
            bar.update()
            if after_step is not None and train_step.is_last(iteration) and iteration + 1 < iterations:
                after_step()
            arrived = time.perf_counter()
    return state.progress.epoch.means()


class TrainStep:
    """Forward, backward and, at the last batch of a group, the optimizer step.

    keep: called with each batch that is skipped because it is not finite.
    origin: of the last batch.
    """

    def __init__(
        self,
        task: Task,
        state: TrainingState,
        settings: TrainSettings,
        iterations: int,
        keep: KeepBatch | None = None,
    ) -> None:
        self.task = task
        self.state = state
        self.settings = settings
        self.iterations = iterations
        self.keep = keep
        self.parameters = [p for p in state.model.parameters() if p.requires_grad]
        self.origin = BatchOrigin(0)
        self._skips = settings.on_nonfinite == "skip"
        # The batches of the group so far, with their losses.
        self._group: list[tuple[BatchOrigin, dict[str, Tensor], Batch]] = []
        self._weight = 1.0  # of the group's heaviest batch so far

    def __call__(self, iteration: int, batch: Batch) -> dict[str, Tensor]:
        """Detached losses by name, with `total` and, where a step was made, `grad_norm`.

        Empty where the step is one to leave out.
        """
        targets, last = batch[1], self.is_last(iteration)
        self.origin = BatchOrigin(
            iteration + 1, targets.image_ids, targets.files, targets.image_level, model_random_state()
        )
        if (self.state.epoch, iteration // self.settings.accumulate_steps) in self.state.left_out:
            if last:
                self._leave_out()
            return {}
        group = micro_batches_in_step(iteration, self.iterations, self.settings.accumulate_steps)
        weight = self.settings.image_level_weight if targets.image_level else 1.0
        first = iteration % self.settings.accumulate_steps == 0
        self._weight = weight if first else max(weight, self._weight)
        with maybe_no_sync(self.task.model, last):
            losses = self.task.losses(batch, self.settings.device, self.settings.autocast_dtype)
            total = losses.total * weight / group
            if last and distributed.is_distributed():
                total = touch_all_parameters(total, self.parameters)
            self.state.scaler.scale(total).backward()
        named = {"total": losses.total.detach(), **losses.named}
        if self._skips:
            self._group.append((self.origin, dict(named), batch))
        if last:
            named["grad_norm"] = self._step()
        return named

    def is_last(self, iteration: int) -> bool:
        """Whether the batch is the last of its group, so that an optimizer step follows."""
        return (iteration + 1) % self.settings.accumulate_steps == 0 or iteration + 1 == self.iterations

    def _step(self) -> Tensor:
        """The optimizer step; returns the gradients' norm before clipping."""
        state, settings = self.state, self.settings
        fill_missing_gradients(self.parameters)
        state.scaler.unscale_(state.optimizer)
        if settings.clip_max_norm > 0:
            # Nearly every step is clipped: one of light batches alone would else be as long as any other.
            norm = nn.utils.clip_grad_norm_(self.parameters, settings.clip_max_norm * self._weight)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # With float16 an infinite norm is a step that the scaler skips, not a failure.
        scaled = state.scaler.is_enabled()
        if self._skips and self._is_bad(None if scaled else norm):
            state.scaler.update()
            self._leave_out()
        else:
            state.scaler.step(state.optimizer)
            state.scaler.update()
            state.optimizer.zero_grad(set_to_none=True)
            state.schedule.step()
            if state.epoch >= settings.ema_epoch:
                state.update_average()
        return norm.nan_to_num(posinf=0.0, neginf=0.0, nan=0.0) if scaled else norm

    def _leave_out(self) -> None:
        """Counts a step that is not made."""
        self.state.optimizer.zero_grad(set_to_none=True)
        go_to_step(self.state.schedule, self.state.step + 1)

    def _is_bad(self, norm: Tensor | None) -> bool:
        """Whether a rank's losses or the gradients' norm are not finite, so that no rank makes the step.

        Reads one number from the GPU; keeps the batches whose losses are not finite. norm: None where it does
        not count. Raises UserError after too many in a row.
        """
        group, self._group = self._group, []
        totals = torch.stack([named["total"].float() for _, named, _ in group])
        numbers = totals if norm is None else torch.cat((totals, norm.float()[None]))
        finite = bool(numbers.isfinite().all())
        if not finite:
            for (origin, named, batch), good in zip(group, totals.isfinite().tolist(), strict=True):
                if not good:
                    self._keep(origin, named, batch)
        bad = bool(distributed.max_over_ranks([not finite])[0])
        self.state.skipped = self.state.skipped + 1 if bad else 0
        if bad and distributed.is_main():
            where = f"epoch {self.state.epoch + 1}, iteration {self.origin.iteration}"
            _log.warning("%s: the step is left out, %d in a row", where, self.state.skipped)
        if self.state.skipped > MOST_SKIPPED:
            raise UserError(
                f"training stopped: {self.state.skipped} steps in a row were not finite; lower lr, or set "
                "amp_dtype='bfloat16'"
            )
        return bad

    def _keep(self, origin: BatchOrigin, named: dict[str, Tensor], batch: Batch) -> None:
        losses = {name: float(value) for name, value in named.items()}
        found = NonFinite(origin, losses, self.state.epoch + 1, distributed.rank())
        _log.warning("%s", NonFiniteError(found, distributed.world_size()).what)
        if self.keep is not None:
            self.keep(found, batch)


class StepLogger:
    """Turns steps into log entries and, in `state.progress`, the epoch's means."""

    def __init__(
        self, state: TrainingState, settings: TrainSettings, iterations: int, log: RunLog | None
    ) -> None:
        self.state, self.settings, self.iterations, self.log = state, settings, iterations, log
        self.steps = 0
        self.waited = 0.0
        self.started = time.perf_counter()
        self.interval = settings.log_interval * settings.accumulate_steps
        state.progress.window.drops = settings.on_nonfinite == "skip"

    def add(self, origin: BatchOrigin, losses: dict[str, Tensor], waited: float) -> None:
        if losses:
            self.state.progress.window.add(origin, losses)
        self.steps += 1
        self.waited += waited
        if origin.iteration % self.interval == 0 or origin.iteration == self.iterations:
            self._report(origin.iteration)

    def _report(self, iteration: int) -> None:
        progress = self.state.progress
        averages = progress.window.flush(self.state.epoch + 1)
        progress.epoch.merge(averages)
        now = time.perf_counter()
        if self.log is not None:
            seconds = (now - self.started) / self.steps
            entry = self._entry(iteration, averages.means(), seconds, self.waited / self.steps)
            self.log.step(entry, step_line(entry, self.settings.epochs, self.iterations))
        self.started, self.waited, self.steps = now, 0.0, 0

    def _entry(self, iteration: int, means: dict[str, float], seconds: float, waited: float) -> dict:
        left = self.iterations * (self.settings.epochs - self.state.epoch) - iteration
        return {
            "epoch": self.state.epoch + 1,
            "iteration": iteration,
            "step": self.state.step,
            "lr": max(group["lr"] for group in self.state.optimizer.param_groups),
            "total": means.pop("total", float("nan")),
            "grad_norm": means.pop("grad_norm", float("nan")),
            "losses": means,
            "seconds": seconds,
            "data_seconds": waited,
            "memory_bytes": peak_memory(self.settings.device),
            "eta_seconds": left * seconds,
        }
