"""Everything that training changes, in one place: what a checkpoint saves and resume restores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from engine.early_stopping import EarlyStopping
from engine.freeze import was_frozen
from engine.optimizer import load_optimizer_state, optimizer_state
from engine.random_state import load_random_state, random_state
from engine.schedule import go_to_step, resumed_step
from util import distributed
from util.checkpoint import Checkpoint, load_model_state
from util.errors import UserError


@dataclass
class TrainingState:
    """model: the bare model, not wrapped for several ranks.
    steps_per_epoch: optimizer steps.
    scaler: switched off unless the precision is float16.
    ema: average of the weights, None when none is kept.  ema_updates: steps that went into it.
    epoch: epochs finished, so also the index from 0 of the next.
    best_ap: highest AP so far, None before the first evaluation.
    early_stopping: counts evaluations without a rise, whether or not they stop the run.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    steps_per_epoch: int
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None = None
    ema_updates: int = 0
    epoch: int = 0
    best_ap: float | None = None
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
            self.epoch = epoch
            go_to_step(self.schedule, epoch * self.steps_per_epoch)

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self.schedule.last_epoch

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
        """Called on every rank: each one's random state is kept. identity: the checkpoint's other entries."""
        return Checkpoint(
            **identity,
            model=self.model.state_dict(),
            optimizer=optimizer_state(self.optimizer, self.model),
            scheduler={"position": self.step, "steps_per_epoch": self.steps_per_epoch},
            scaler=self.scaler.state_dict(),
            ema=self._ema_state(),
            epoch=self.epoch,
            best_ap=self.best_ap,
            early_stopping=self.early_stopping.state(),
            rng=distributed.all_gather_object(random_state()),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues where the checkpoint stopped.

        With another number of ranks the random numbers continue from this run's own seeds.
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
        go_to_step(self.schedule, resumed_step(checkpoint.scheduler, self.steps_per_epoch))
        if checkpoint.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)
        if self.ema is not None and checkpoint.ema:
            load_model_state(self.ema.module, checkpoint.ema["model"], checkpoint.path)
            self.ema_updates = int(checkpoint.ema["updates"])
        elif self.ema is not None:
            self.ema.set(self.model)
        self.epoch = checkpoint.epoch
        self.best_ap = checkpoint.best_ap
        self.early_stopping.restore(checkpoint.early_stopping, checkpoint.best_ap)
        states = checkpoint.rng or ()
        if len(states) == distributed.world_size():
            load_random_state(states[distributed.rank()])
