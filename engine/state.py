"""Everything that training changes, in one place: what a checkpoint saves and resume restores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoint import load_model_state
from engine.ema import Ema
from engine.optimizer import load_optimizer_state, optimizer_state
from engine.random_state import load_random_state, random_state
from engine.schedule import Schedule
from util import distributed
from util.errors import UserError


@dataclass
class TrainingState:
    """model: the bare model, not wrapped for several ranks.
    scaler: switched off unless the precision is float16.
    ema: None when no average is kept.
    epoch: epochs finished, so also the index from 0 of the next.
    best_ap: highest AP so far, None before the first evaluation.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    ema: Ema | None = None
    epoch: int = 0
    best_ap: float | None = None

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights that are evaluated: the average where one is kept."""
        return self.ema.module if self.ema is not None else self.model

    def start(self, content: dict[str, Any], path: str | Path, epoch: int | None = None) -> None:
        """Goes where training is to go on: to the checkpoint `content` unless that is empty, then to `epoch`
        finished epochs unless that is None (`--start_epoch`)."""
        if content:
            self.load_state_dict(content, path)
        if epoch is not None:
            self.epoch = epoch
            self.schedule.go_to_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Plain data. Called on every rank: the random state of each is kept."""
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "epoch": self.epoch,
            "best_ap": self.best_ap,
            "rng": distributed.all_gather_object(random_state()),
        }

    def load_state_dict(self, content: dict[str, Any], path: str | Path) -> None:
        """Continues where the checkpoint `content`, read from `path`, stopped.

        With another number of ranks the random numbers go on from this run's own seeds.
        Raises UserError for weights of another shape or a checkpoint without training state.
        """
        missing = [key for key in ("optimizer", "scheduler", "epoch") if content.get(key) is None]
        if missing:
            raise UserError(
                f"{path}: has weights but no {missing[0]} state, training cannot continue: "
                "start from it with --pretrain_model_path"
            )
        load_model_state(self.model, content["model"], path)
        load_optimizer_state(self.optimizer, self.model, content["optimizer"])
        self.schedule.load_state_dict(content["scheduler"])
        if content.get("scaler"):
            self.scaler.load_state_dict(content["scaler"])
        if self.ema is not None and content.get("ema"):
            load_model_state(self.ema.module, content["ema"]["model"], path)
            self.ema.updates = int(content["ema"]["updates"])
        elif self.ema is not None:
            self.ema.follow(self.model)
        self.epoch = int(content["epoch"])
        self.best_ap = content["best_ap"]
        states = content.get("rng") or []
        if len(states) == distributed.world_size():
            load_random_state(states[distributed.rank()])
