"""The loop over epochs: train, evaluate, save."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.device import peak_memory
from engine.evaluate import evaluate, metrics_table, percent
from engine.loss_buffer import NonFinite, NonFiniteError
from engine.nonfinite import MOST_ROLLBACKS, file_name, keep_batch
from engine.protocols import Evaluator, Loader, Postprocess
from engine.run_directory import RunDirectory
from engine.run_log import LogPosition, RunLog, duration
from engine.saving import Saver
from engine.settings import TrainSettings
from engine.state import TrainingState
from engine.stopping import Stopped, Stopping, stop_if
from engine.trackers import open_trackers
from engine.train_epoch import Task, train_one_epoch
from util import distributed
from util.checkpoint import Checkpoint
from util.errors import UserError
from util.structures import Batch

_log = logging.getLogger(__name__)

# Damaged images that a line of the log names.
_MOST_NAMED = 20


@dataclass(frozen=True)
class Validation:
    """How a model is evaluated. make_evaluator: gives a fresh evaluator for each evaluation."""

    loader: Loader
    postprocess: Postprocess
    make_evaluator: Callable[[], Evaluator]


def fit(
    task: Task,
    state: TrainingState,
    train_loader: Loader,
    validation: Validation,
    settings: TrainSettings,
    run: RunDirectory,
    identity: dict[str, Any],
    stopping: Stopping | None = None,
) -> int:
    """Trains from where `state` is to `settings.epochs`; writes the log and the checkpoints into `run`.

    identity: what every checkpoint also holds: class names, config, run section. Called on every rank.
    stopping: whose signals and time limit end the run early.
    Returns the exit status: 0, or that of the stop.
    """
    stopping = stopping or Stopping()
    log = _open_log(run, state, settings, identity) if distributed.is_main() else None
    saver = Saver(run, settings, identity)
    state.has_best = saver.has_best(state.best_ap)
    status, line = 0, ""
    with log or nullcontext():
        with saver, stopping.in_time():
            try:
                _Training(task, state, train_loader, validation, settings, saver, log, stopping).run()
            except Stopped as stop:
                status, line = stop.status, f"stopped at step {state.step}, resume with --resume auto"
        # The checkpoint is on the disk.
        if line:
            _log.info(line)
    return status


def _open_log(
    run: RunDirectory, state: TrainingState, settings: TrainSettings, identity: Mapping[str, Any]
) -> RunLog:
    """The log, with the trackers that the settings name."""
    shown = {**identity.get("config", {}), "seed": identity.get("run", {}).get("seed")}
    trackers = open_trackers(settings.trackers, run.path, shown)
    return RunLog(run.log, _position(state), trackers)


def _position(state: TrainingState) -> LogPosition:
    lines = state.epoch if state.evaluated else state.epoch - 1
    return LogPosition(state.epoch, state.saved_iteration, lines)


@dataclass
class _Training:
    """The loop over epochs, on one rank."""

    task: Task
    state: TrainingState
    loader: Loader
    validation: Validation
    settings: TrainSettings
    saver: Saver
    log: RunLog | None
    stopping: Stopping
    rollbacks: int = 0

    def run(self) -> None:
        state, settings, early = self.state, self.settings, self.state.early_stopping
        started, first = time.perf_counter(), state.epoch
        if not state.evaluated:
            _log.info("epoch %d is trained, its evaluation is still to be done", state.epoch)
            self._evaluate_epoch()
        elif first >= settings.epochs:
            _log.warning("nothing to train: %d of %d epochs are done; raise epochs", first, settings.epochs)
        elif early.reached:
            _log.warning("nothing to train: stopped early after epoch %d: %s; raise it", first, early)
        while state.epoch < settings.epochs and not early.reached:
            try:
                self._train_epoch()
            except NonFiniteError as error:
                self._go_back(error)
        _log.info("trained %d epochs in %s", state.epoch - first, duration(time.perf_counter() - started))

    def _train_epoch(self) -> None:
        """Trains, logs and saves, in an order in which a stop at any point loses nothing.

        A checkpoint comes before the evaluation, which may fail or be stopped, and counts on the log's lines
        so far: resume sets aside those beyond it.
        """
        state, settings = self.state, self.settings
        train_one_epoch(self.task, state, self.loader, settings, self.log, self._after_step, self._keep)
        self._close_epoch()
        due, asked = self.stopping.agree(self.saver.is_due(state))
        if not state.evaluated:
            self._save()
            # Whatever happens next, it is there. The evaluation's loader may fork: no thread is writing then.
            self.saver.wait()
            stop_if(asked)
            self._evaluate_epoch()
            return
        self._log_epoch(None, 0.0)
        if due or asked or state.epoch % settings.save_epochs == 0:
            self._save()
        stop_if(asked)

    def _after_step(self) -> None:
        """What ranks do between two optimizer steps of an epoch."""
        due, asked = self.stopping.agree(self.saver.is_due(self.state))
        if due or asked:
            self._save()
        stop_if(asked)

    def _go_back(self, error: NonFiniteError) -> None:
        """To the latest checkpoint, from which training goes on without the step that was not finite.

        Raises UserError where that is not wanted, or not possible.
        """
        state, found, latest = self.state, error.found, self.saver.run.latest
        file = self._keep_again(found)
        self.saver.wait()
        possible = distributed.broadcast_object(latest.exists()) and self.rollbacks < MOST_ROLLBACKS
        if self.settings.on_nonfinite != "rollback" or not possible:
            raise UserError(f"{error}; python tools/replay_batch.py {file} looks into it") from error
        self.rollbacks += 1
        state.left_out.add((found.epoch - 1, (found.origin.iteration - 1) // state.accumulate_steps))
        state.restore(Checkpoint.read(latest))
        if self.log is not None:
            _log.warning("%s; back to step %d, and on without it", error.what, state.step)
            self.log.go_back(_position(state))

    def _keep_again(self, found: NonFinite) -> Path:
        """Keeps the batch, which its rank reads a second time; on every rank."""
        path = self._batch_file(found)
        if found.rank == distributed.rank():
            self.loader.set_epoch(found.epoch - 1, found.origin.iteration - 1)
            self._keep(found, next(iter(self.loader)))
        distributed.barrier()
        return path

    def _keep(self, found: NonFinite, batch: Batch) -> None:
        try:
            keep_batch(self._batch_file(found), found, batch)
        except UserError as error:
            _log.warning("%s", error)

    def _batch_file(self, found: NonFinite) -> Path:
        group = -(-found.origin.iteration // self.state.accumulate_steps)
        step = (found.epoch - 1) * self.state.steps_per_epoch + group
        return self.saver.run.path / file_name(step)

    def _close_epoch(self) -> None:
        """Counts the epoch and makes what is evaluated and saved the same on every rank."""
        state, settings = self.state, self.settings
        distributed.broadcast_buffers(state.model)
        if state.ema is not None:
            if state.epoch < settings.ema_epoch:
                state.ema.set(state.model)
            distributed.broadcast_buffers(state.ema.module)
        state.finish_epoch()
        state.evaluated = not settings.evaluates_after(state.epoch)

    def _evaluate_epoch(self) -> None:
        """The evaluation that is due, then the epoch's line and the checkpoints that count on it."""
        state, early = self.state, self.state.early_stopping
        started = time.perf_counter()
        metrics, best = _validate(state, self.validation, self.settings, self.stopping.check)
        self._log_epoch(metrics, time.perf_counter() - started)
        state.evaluated = True
        self._save(best=best)
        if early.reached:
            _log.info("stopped early after epoch %d of %d: %s", state.epoch, self.settings.epochs, early)

    def _save(self, *, best: bool = False) -> None:
        if self.log is not None:
            self.log.sync()
        self.saver.save(self.state, best=best)

    def _log_epoch(self, metrics: dict[str, float] | None, eval_seconds: float) -> None:
        """Writes the epoch's line. Called on every rank."""
        loaders = {"train": self.loader, "val": self.validation.loader}
        unusable = {
            "damaged": {split: _on_any_rank(loader.damaged()) for split, loader in loaders.items()},
            "missing": {split: _on_any_rank(loader.missing()) for split, loader in loaders.items()},
        }
        if self.log is None:
            return
        state, progress = self.state, self.state.progress
        losses = progress.epoch.means()
        named = {name: value for name, value in losses.items() if name not in ("total", "grad_norm")}
        self.log.epoch(
            {
                "epoch": state.epoch,
                "step": state.step,
                "total": losses.get("total", float("nan")),
                "losses": named,
                "metrics": metrics,
                "best_ap": state.best_ap,
                **unusable,
                "train_seconds": progress.seconds,
                "eval_seconds": eval_seconds,
                "memory_bytes": peak_memory(self.settings.device),
            }
        )
        for word, splits in unusable.items():
            for split, found in splits.items():
                if found["count"]:
                    _log.warning(
                        "%d %s images so far, %s: %s", found["count"], word, split, found["names"][0]
                    )
        spent = f"trained {duration(progress.seconds)}, evaluated {duration(eval_seconds)}"
        _log.info("epoch %d/%d done: %s", state.epoch, self.settings.epochs, spent)
        if metrics is not None:
            _log.info("validation after epoch %d (best AP %s)", state.epoch, percent(state.best_ap))
            if metrics["AP"] < 0:
                _log.warning(
                    "AP is undefined, so no checkpoint is the best: %s is the latest", self.saver.run.latest
                )
            print(metrics_table(metrics), flush=True)


def _on_any_rank(own: list[str]) -> dict[str, Any]:
    """How many images are named on any rank, and the first of them. own: this rank's."""
    names = sorted({name for part in distributed.all_gather_object(own) for name in part})
    return {"count": len(names), "names": names[:_MOST_NAMED]}


def _validate(
    state: TrainingState, validation: Validation, settings: TrainSettings, check: Callable[[], None]
) -> tuple[dict[str, float] | None, bool]:
    """The metrics (rank 0 only) and, on every rank, whether they are the best so far: never if undefined."""
    evaluator = validation.make_evaluator()
    metrics = evaluate(
        state.evaluated_model, validation.loader, validation.postprocess, evaluator, settings, check
    )
    ap = distributed.broadcast_object(metrics["AP"] if metrics is not None else None)
    assert ap is not None  # rank 0 has the metrics
    highest = state.best_ap is None or ap > state.best_ap or (ap == state.best_ap and not state.has_best)
    best = ap >= 0 and highest
    if best:
        state.best_ap, state.has_best = ap, True
    state.early_stopping.add(ap)
    return metrics, best
