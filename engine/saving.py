"""When checkpoints are written, and in which order."""

from __future__ import annotations

import logging
import time
from typing import Any

from engine.checkpoint_writer import CheckpointWriter
from engine.run_directory import RunDirectory
from engine.settings import TrainSettings
from engine.state import TrainingState
from util import distributed
from util.checkpoint import Checkpoint
from util.errors import UserError

_log = logging.getLogger(__name__)


class Saver:
    """Writes the checkpoints of one run. Made on every rank; rank 0 writes. `with` waits for the last one.

    identity: what every checkpoint also holds: class names, config, run section.
    """

    def __init__(self, run: RunDirectory, settings: TrainSettings, identity: dict[str, Any]) -> None:
        self.run, self.settings, self.identity = run, settings, identity
        self._writer = CheckpointWriter(run, settings.keep_checkpoints)
        self._saved = time.monotonic()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises UserError, on every rank, where the last checkpoint could not be written."""
        if kind is None:
            distributed.on_main(self._writer.close)
        else:
            # Other ranks may be gone, and the error that ends the run is the one to be told.
            self._writer.wait()

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk, or could not be written."""
        self._writer.wait()

    def is_due(self, state: TrainingState) -> bool:
        """Whether `save_interval` or `save_minutes` ask for a checkpoint now; ranks may differ in time."""
        steps, seconds = self.settings.save_steps, 60 * self.settings.save_minutes
        by_step = steps > 0 and state.step % steps == 0
        return by_step or 0 < seconds <= time.monotonic() - self._saved

    def has_best(self, best_ap: float | None) -> bool:
        """Whether the best checkpoint of AP `best_ap` is there, or there is none to have; the same on every
        rank. Says in the log what is wrong with it.
        """

        def problem() -> str:
            if best_ap is None:
                return ""
            if not self.run.best.exists():
                return f"{self.run.best} is missing"
            try:
                found = Checkpoint.read(self.run.best).best_ap
            except UserError as error:
                return str(error)
            older = found is None or found < best_ap
            return f"{self.run.best} is older than the best AP of this run" if older else ""

        wrong = distributed.on_main(problem)
        if wrong and distributed.is_main():
            _log.warning(
                "%s: the next evaluation with an AP of at least %.4f replaces it", wrong, 100 * (best_ap or 0)
            )
        return not wrong

    def save(self, state: TrainingState, *, best: bool = False) -> None:
        """Writes the latest checkpoint, after the best one where that is `best`; called on every rank.

        In this order a stop between the two leaves no checkpoint whose best AP has no file. Training goes on
        meanwhile. Raises UserError, on every rank, where the weights are not finite.
        """
        checkpoint = state.checkpoint(self.identity)
        distributed.on_main(lambda: self._writer.save(checkpoint, latest=True, best=best))
        self._saved = time.monotonic()
