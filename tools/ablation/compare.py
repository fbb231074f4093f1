"""Rows compared: means, spread over seeds, and differences with intervals.

Intervals are those of the paired bootstrap of `datasets.evaluation.weighted_ap`: all runs see the same
weights of the validation images. Seeds are pooled: a replicate's difference is the mean over them, and over
folds. So an interval says how much a difference would move with other validation images, `sd` how much with
other seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.evaluation.judged import Judged, judge
from datasets.evaluation.result import BoxResult
from datasets.evaluation.weighted_ap import bootstrap, interval
from tools.ablation.plan import Run
from tools.ablation.results import Result
from tools.tail_report.content import FEWEST_IMAGES, LEVEL
from tools.tail_report.evaluation import open_evaluations

# Metric -> the frequency of its classes.
METRICS = {"AP": "", "APr": "r", "APc": "c", "APf": "f"}
Finished = Mapping[Run, Result]
# Of metrics, 0..1: other versions of numpy add in another order.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Replicas:
    """values: metric -> (B,) of one run, for the metrics that are defined.
    images: metric -> validation images that show its classes."""

    values: Mapping[str, np.ndarray]
    images: Mapping[str, int]


def replicate_runs(runs: Finished, replicates: int) -> dict[Run, Replicas]:
    """Of the runs whose predictions are in place, and are those of the result."""
    found: dict[Run, Replicas] = {}
    for fold in sorted({run.fold for run in runs}):
        members = [run for run in runs if run.fold == fold and _predictions(run)]
        if not members:
            continue
        evaluations = open_evaluations([run.folder.path for run in members], None, None)
        outcomes = [judge(e.annotations, e.predictions) for e in evaluations]
        # Folds have other images, so other weights.
        replicas = bootstrap([judged for _, judged in outcomes], replicates, seed=fold)
        for run, outcome, values in zip(members, outcomes, replicas, strict=True):
            if _same_metrics(runs[run], outcome[0]):
                found[run] = _replicas(*outcome, values)
    return found


def _same_metrics(result: Result, judged: BoxResult) -> bool:
    """Whether predictions give what was kept of the run: another's may have taken their place."""
    return all(abs(judged.metrics[name] - result.metrics[name]) < _ROUNDING for name in METRICS)


def _predictions(run: Run) -> bool:
    return (run.folder.path / "eval" / "predictions.npy").is_file()


def _replicas(result: BoxResult, judged: Judged, values: np.ndarray) -> Replicas:
    defined = np.array([c.ap is not None for c in result.classes])
    frequency = np.array([c.frequency for c in result.classes])
    groups = {name: defined & ((frequency == key) | (not key)) for name, key in METRICS.items()}
    groups = {name: members for name, members in groups.items() if members.any()}
    boxes = judged.boxes
    return Replicas(
        {name: values[:, members].mean(1) for name, members in groups.items()},
        {
            name: len(np.unique(boxes.image_index[boxes.counted & members[boxes.class_index]]))
            for name, members in groups.items()
        },
    )


def complete_seeds(row: str, seeds: Iterable[int], folds: Sequence[int], finished: Finished) -> list[int]:
    """Seeds with which a row has finished every fold."""
    done = {(run.seed, run.fold) for run in finished if run.row == row}
    return [seed for seed in seeds if all((seed, fold) in done for fold in folds)]


def summary(row: str, seeds: Sequence[int], finished: Finished) -> dict[str, Any]:
    """Of each metric the mean and standard deviation over seeds, where each seed is the mean over folds."""
    content = {}
    for name in METRICS:
        values = _by_seed({row: 1.0}, seeds, name, finished)
        content[name] = {"mean": _number(values.mean()), "sd": _spread(values)} if len(values) else None
    return content


def difference(
    row: str,
    other: str,
    seeds: Sequence[int],
    finished: Finished,
    replicas: Mapping[Run, Replicas],
) -> dict[str, Any]:
    """Row minus other over the seeds that both have, by metric; `interval` is None where none is possible."""
    content: dict[str, Any] = {}
    for name in METRICS:
        values = _by_seed({row: 1.0, other: -1.0}, seeds, name, finished)
        if not len(values) or np.isnan(values).any():
            content[name] = None
            continue
        runs = [run for run in finished if run.row in (row, other) and run.seed in seeds]
        content[name] = {
            "mean": _number(values.mean()),
            "sd": _spread(values),
            "interval": _interval(row, runs, name, replicas),
        }
    return content


def _interval(
    row: str, runs: Sequence[Run], name: str, replicas: Mapping[Run, Replicas]
) -> list[float] | None:
    """None where predictions are missing, or too few validation images show the classes."""
    if not all(run in replicas for run in runs):
        return None
    folds = []
    images = 0
    for fold in sorted({run.fold for run in runs}):
        members = [run for run in runs if run.fold == fold and name in replicas[run].values]
        if members:
            signs = [1.0 if run.row == row else -1.0 for run in members]
            each = [sign * replicas[run].values[name] for sign, run in zip(signs, members, strict=True)]
            folds.append(np.sum(each, axis=0) / (len(members) / 2))
            images += replicas[members[0]].images[name]
    if images < FEWEST_IMAGES:
        return None
    return list(interval(np.mean(folds, axis=0), LEVEL))


def _by_seed(signs: Mapping[str, float], seeds: Sequence[int], name: str, finished: Finished) -> np.ndarray:
    """(seeds,) of a metric, signed and added over rows, then the mean over the folds that define it."""
    values = []
    for seed in seeds:
        by_fold: dict[int, float] = {}
        for run, result in finished.items():
            if run.seed == seed and run.row in signs:
                metric = result.metrics[name]
                signed = signs[run.row] * metric if metric >= 0 else np.nan
                by_fold[run.fold] = by_fold.get(run.fold, 0.0) + signed
        defined = [value for value in by_fold.values() if not np.isnan(value)]
        values.append(np.mean(defined) if defined else np.nan)
    return np.array(values)


def _spread(values: np.ndarray) -> float | None:
    """The sample's standard deviation; one value has none."""
    return _number(values.std(ddof=1)) if len(values) > 1 else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
