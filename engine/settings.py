"""What the loops need to know, as plain values."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainSettings:
    """epochs: of the whole run.  ema_epoch: epochs before the average begins.
    max_steps: optimizer steps after which the last epoch ends early, 0 for whole epochs alone.
    autocast_dtype: 16-bit type of mixed precision, None for none.
    accumulate_steps: batches per optimizer step.  clip_max_norm: 0 for no clipping.
    image_level_weight: of the losses of image-level batches, and of `clip_max_norm` in steps of them alone.
    log_interval: optimizer steps between log lines.  eval_interval: epochs between evaluations.
    save_epochs, save_steps, save_minutes: between checkpoints, whichever comes first; 0 steps or minutes
        for none of their own.  keep_checkpoints: how many earlier ones stay.
    on_nonfinite: 'stop', 'skip' or 'rollback' where a loss or gradient is not finite.
    max_iterations: batches after which an epoch and an evaluation stop early (`--debug`), 0 for never.
    trackers: names of `engine.trackers`; empty for TensorBoard where it is installed.
    """

    epochs: int
    device: torch.device
    autocast_dtype: torch.dtype | None = None
    accumulate_steps: int = 1
    clip_max_norm: float = 0.1
    image_level_weight: float = 1.0
    ema_epoch: int = 0
    log_interval: int = 50
    eval_interval: int = 1
    save_epochs: int = 1
    save_steps: int = 0
    save_minutes: float = 0.0
    keep_checkpoints: int = 0
    on_nonfinite: str = "stop"
    max_iterations: int = 0
    max_steps: int = 0
    trackers: tuple[str, ...] = ()

    def evaluates_after(self, epoch: int) -> bool:
        """Whether an evaluation follows epoch `epoch`, from 1."""
        return epoch == self.epochs or epoch % self.eval_interval == 0

    def iterations(self, loader_length: int) -> int:
        """Batches of an epoch."""
        return min(loader_length, self.max_iterations) if self.max_iterations else loader_length

    def iterations_left(self, loader_length: int, done: int, step: int) -> int:
        """Batches of this epoch, of which `done` are done, after `step` optimizer steps of the run."""
        iterations = self.iterations(loader_length)
        if self.max_steps:
            left = max(0, self.max_steps - step) * self.accumulate_steps
            iterations = min(iterations, done + left)
        return iterations
