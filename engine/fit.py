"""The loop over epochs: train, evaluate, save."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from engine.device import peak_memory
from engine.evaluate import evaluate, metrics_table
from engine.protocols import Evaluator, Loader, Postprocess
from engine.run_directory import RunDirectory
from engine.run_log import RunLog, duration
from engine.settings import TrainSettings
from engine.state import TrainingState
from engine.trackers import open_trackers
from engine.train_epoch import Task, train_one_epoch
from util import distributed
from util.checkpoint import save_checkpoint

_log = logging.getLogger(__name__)


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
) -> None:
    """Trains from `state.epoch` to `settings.epochs`; writes the log and the checkpoints into `run`.

    identity: what every checkpoint also holds: class names, config, run section. Called on every rank.
    """
    log = _open_log(run, state, settings, identity) if distributed.is_main() else None
    started = time.perf_counter()
    first, stopping = state.epoch, state.early_stopping
    if first >= settings.epochs:
        _log.warning("nothing to train: %d of %d epochs are done; raise epochs", first, settings.epochs)
    elif stopping.reached:
        _log.warning("nothing to train: stopped early after epoch %d: %s; raise it", first, stopping)
    with log or nullcontext():
        while state.epoch < settings.epochs and not stopping.reached:
            _run_epoch(task, state, train_loader, validation, settings, run, identity, log)
    _log.info("trained %d epochs in %s", state.epoch - first, duration(time.perf_counter() - started))


def _open_log(
    run: RunDirectory, state: TrainingState, settings: TrainSettings, identity: Mapping[str, Any]
) -> RunLog:
    """The log, with the trackers that the settings name."""
    shown = {**identity.get("config", {}), "seed": identity.get("run", {}).get("seed")}
    trackers = open_trackers(settings.trackers, run.path, shown)
    return RunLog(run.log, keep_epochs=state.epoch, trackers=trackers)


def _run_epoch(
    task: Task,
    state: TrainingState,
    train_loader: Loader,
    validation: Validation,
    settings: TrainSettings,
    run: RunDirectory,
    identity: dict[str, Any],
    log: RunLog | None,
) -> None:
    """Trains, evaluates where it is due, saves, logs."""
    epoch_started = time.perf_counter()
    stopping = state.early_stopping
    losses = train_one_epoch(task, state, train_loader, settings, log)
    _close_epoch(state, settings)
    trained = time.perf_counter()
    last = state.epoch == settings.epochs
    metrics, best = None, False
    if last or state.epoch % settings.eval_interval == 0:
        metrics, best = _validate(state, validation, settings)
    _report_damaged(train_loader)
    latest = last or stopping.reached or state.epoch % settings.save_interval == 0
    _save(state, run, identity, latest=latest, best=best)
    if log is not None:
        seconds = (trained - epoch_started, time.perf_counter() - trained)
        _log_epoch(log, state, settings, losses, metrics, seconds)
    if stopping.reached:
        _log.info("stopped early after epoch %d of %d: %s", state.epoch, settings.epochs, stopping)


def _close_epoch(state: TrainingState, settings: TrainSettings) -> None:
    """Counts the epoch and makes what is evaluated and saved the same on every rank."""
    distributed.broadcast_buffers(state.model)
    if state.ema is not None:
        if state.epoch < settings.ema_epoch:
            state.ema.set(state.model)
        distributed.broadcast_buffers(state.ema.module)
    state.epoch += 1


def _report_damaged(loader: Loader) -> None:
    names = sorted({name for part in distributed.all_gather_object(loader.damaged()) for name in part})
    if names and distributed.is_main():
        _log.warning("%d damaged images were replaced by others so far, e.g. %s", len(names), names[0])


def _validate(
    state: TrainingState, validation: Validation, settings: TrainSettings
) -> tuple[dict[str, float] | None, bool]:
    """The metrics (rank 0 only) and, on every rank, whether they are the best so far."""
    evaluator = validation.make_evaluator()
    metrics = evaluate(state.evaluated_model, validation.loader, validation.postprocess, evaluator, settings)
    ap = distributed.broadcast_object(metrics["AP"] if metrics is not None else None)
    assert ap is not None  # rank 0 has the metrics
    best = state.best_ap is None or ap > state.best_ap
    if best:
        state.best_ap = ap
    state.early_stopping.add(ap)
    return metrics, best


def _save(
    state: TrainingState, run: RunDirectory, identity: dict[str, Any], latest: bool, best: bool
) -> None:
    if not (latest or best):
        return
    checkpoint = state.checkpoint(identity)

    def write() -> None:
        for path in [run.latest] * latest + [run.best] * best:
            save_checkpoint(path, checkpoint)

    distributed.on_main(write)


def _log_epoch(
    log: RunLog,
    state: TrainingState,
    settings: TrainSettings,
    losses: dict[str, float],
    metrics: dict[str, float] | None,
    seconds: tuple[float, float],
) -> None:
    train_seconds, eval_seconds = seconds
    named = {name: value for name, value in losses.items() if name not in ("total", "grad_norm")}
    log.epoch(
        {
            "epoch": state.epoch,
            "step": state.step,
            "total": losses["total"],
            "losses": named,
            "metrics": metrics,
            "best_ap": state.best_ap,
            "train_seconds": train_seconds,
            "eval_seconds": eval_seconds,
            "memory_bytes": peak_memory(settings.device),
        }
    )
    spent = f"trained {duration(train_seconds)}, evaluated and saved {duration(eval_seconds)}"
    _log.info("epoch %d/%d done: %s", state.epoch, settings.epochs, spent)
    if metrics is not None:
        _log.info("validation after epoch %d (best AP %.4f)", state.epoch, 100 * (state.best_ap or 0.0))
        print(metrics_table(metrics), flush=True)
