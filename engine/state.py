"""Everything that training changes, in one place: what a checkpoint saves and resume restores."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from engine.average import WeightAverage
from engine.early_stopping import EarlyStopping
from engine.epoch_progress import EpochProgress
from engine.freeze import was_frozen
from engine.optimizer import load_optimizer_state, optimizer_state
from engine.random_state import load_random_state, random_state
from engine.schedule import go_to_step, resumed_step
from util import distributed
from util.checkpoint import Checkpoint, load_model_state
from util.errors import UserError

_log = logging.getLogger(__name__)

# Settings that move the places of samples in the order of batches.
_BATCH_KEYS = (
    *("batch_size", "sub_batch_size", "accumulate_steps", "main_weight", "sub_weight"),
    *("image_level_start", "image_level_end"),
)


@dataclass
class TrainingState:
    """model: the bare model, not wrapped for several ranks.
    steps_per_epoch: optimizer steps.  accumulate_steps: batches of each.
    scaler: switched off unless the precision is float16.
    ema: average of the weights, None when none is kept.  ema_updates: steps that went into it.
    epoch: epochs finished, so also the index from 0 of the next.
    iteration: batches of the next epoch that are done; checkpoints are made at whole optimizer steps.
    saved_iteration: the same as the checkpoint that was restored counts it, for its log.
    evaluated: False while the evaluation that follows epoch `epoch` is still to be done.
    left_out: optimizer steps that are not made, (epoch, step in it) from 0.  skipped: the same in a row.
    progress: what the log knows of the epoch that has no line yet.
    best_ap: highest AP so far, None before the first evaluation that defines it.
    has_best: whether the checkpoint of `best_ap` is on the disk.
    early_stopping: counts evaluations without a rise, whether or not they stop the run.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    steps_per_epoch: int
    scaler: torch.amp.GradScaler
    accumulate_steps: int = 1
    ema: WeightAverage | None = None
    ema_updates: int = 0
    epoch: int = 0
    iteration: int = 0
    saved_iteration: int = 0
    evaluated: bool = True
    left_out: set[tuple[int, int]] = field(default_factory=set)
    skipped: int = 0
    progress: EpochProgress = field(default_factory=EpochProgress)
    best_ap: float | None = None
    has_best: bool = True
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights that are evaluated: the average where one is kept."""
        return self.ema.module if self.ema is not None else self.model

    def start(self, checkpoint: Checkpoint | None, epoch: int | None = None) -> None:
        """Continues from `checkpoint`, if there is one, then from `epoch` finished epochs, if it is given
        (`--start_epoch`)."""
        if checkpoint is not None:
            self.restore(checkpoint)
        if epoch is not None:
            self.epoch, self.iteration, self.saved_iteration, self.evaluated = epoch, 0, 0, True
            self.progress = EpochProgress()
            go_to_step(self.schedule, epoch * self.steps_per_epoch)

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self.schedule.last_epoch

    def begin_epoch(self) -> None:
        """Starts the epoch's means. Steps that an epoch lacks which `max_steps` ended early count as made."""
        self.progress = EpochProgress()
        if self.step < self.epoch * self.steps_per_epoch:
            go_to_step(self.schedule, self.epoch * self.steps_per_epoch)

    def finish_epoch(self) -> None:
        """Counts the epoch whose batches are done."""
        self.epoch += 1
        self.iteration = 0

    def update_average(self) -> None:
        """One step of the average, where one is kept.

        timm's warm-up counts from 2: update t (from 0) has decay min(decay, (1 + t) / (10 + t)).
        """
        if self.ema is not None:
            self.ema.update(self.model, step=self.ema_updates + 2)
            self.ema_updates += 1

    def _ema_state(self) -> dict[str, Any] | None:
        if self.ema is None:
            return None
        return {"model": self.ema.module.state_dict(), "updates": self.ema_updates}

    def checkpoint(self, identity: Mapping[str, Any]) -> Checkpoint:
        """Called on every rank: each one's random state is kept. identity: the checkpoint's other entries.

        Raises UserError, on every rank alike, where a loss since the last log line was not finite.
        """
        unlogged = self.iteration > 0 or not self.evaluated
        return Checkpoint(
            **identity,
            model=self.model.state_dict(),
            optimizer=optimizer_state(self.optimizer, self.model),
            scheduler={"position": self.step, "steps_per_epoch": self.steps_per_epoch},
            scaler=self.scaler.state_dict(),
            ema=self._ema_state(),
            epoch=self.epoch,
            iteration=self.iteration,
            evaluated=self.evaluated,
            progress=self.progress.state(self.epoch + 1) if unlogged else {},
            best_ap=self.best_ap,
            early_stopping=self.early_stopping.state(),
            rng=distributed.all_gather_object(random_state()),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues where the checkpoint stopped.

        With another number of ranks the random numbers continue from this run's own seeds; with epochs of
        another length it is the nearest whole optimizer step. Both are said in the log.
        Raises UserError for weights of another shape or a checkpoint without training state.
        """
        checkpoint.check_resumable()
        assert checkpoint.optimizer is not None and checkpoint.scheduler is not None
        load_model_state(self.model, checkpoint.model, checkpoint.path)
        try:
            load_optimizer_state(
                self.optimizer,
                self.model,
                checkpoint.optimizer,
                lambda name: was_frozen(name, checkpoint.config),
            )
        except UserError as error:
            raise UserError(f"{checkpoint.path}: {error}") from None
        self._go_to(checkpoint)
        if checkpoint.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)
        if self.ema is not None and checkpoint.ema:
            load_model_state(self.ema.module, checkpoint.ema["model"], checkpoint.path)
            self.ema_updates = int(checkpoint.ema["updates"])
        elif self.ema is not None:
            self.ema.set(self.model)
        self.evaluated = checkpoint.evaluated
        self.progress = EpochProgress.restored(checkpoint.progress)
        # Below 0 it was undefined.
        self.best_ap = best if (best := checkpoint.best_ap) is not None and best >= 0 else None
        self.early_stopping.restore(checkpoint.early_stopping, checkpoint.best_ap)
        states = checkpoint.rng or ()
        if len(states) == distributed.world_size():
            load_random_state(states[distributed.rank()])

    def _go_to(self, checkpoint: Checkpoint) -> None:
        """Epoch, batch and step of the checkpoint; in epochs of another length the nearest whole step."""
        assert checkpoint.scheduler is not None
        self.epoch, self.saved_iteration, self.iteration = checkpoint.epoch, checkpoint.iteration, 0
        step = resumed_step(checkpoint.scheduler, self.steps_per_epoch)
        if checkpoint.iteration:
            # At least one step of the epoch is left.
            first = self.epoch * self.steps_per_epoch
            step = min(max(step, first), first + self.steps_per_epoch - 1)
            self.iteration = (step - first) * self.accumulate_steps
        go_to_step(self.schedule, step)

    def report_changes(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
        """Says in one line why this run is no longer, bit for bit, that of the checkpoint it has restored.

        config: of this run, as a checkpoint has it. Other seeds and learning rates are not named here.
        """
        saved, ranks = checkpoint.config, len(checkpoint.rng or ())
        changes = [
            f"{name} {config[name]} instead of {saved[name]}"
            for name in _BATCH_KEYS
            if name in saved and name in config and saved[name] != config[name]
        ]
        if ranks != distributed.world_size():
            changes.insert(0, f"{distributed.world_size()} processes instead of {ranks}")
        steps = int((checkpoint.scheduler or {}).get("steps_per_epoch", self.steps_per_epoch))
        if steps != self.steps_per_epoch:
            changes.append(f"{self.steps_per_epoch} steps an epoch instead of {steps}")
        if self.ema is not None and checkpoint.ema is None:
            changes.append("an average of the weights, which begins here")
        if changes and distributed.is_main():
            _log.warning(
                "no longer bit-identical to the run of %s: %s; goes on at step %d",
                checkpoint.path, ", ".join(changes), self.step,
            )  # fmt: skip
