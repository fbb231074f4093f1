"""Plots the losses, learning rate and AP of a run, from its log.jsonl, as one PNG.

python tools/plot_curves.py RUN [--output curves.png]
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.run_log import loss_groups, read_log
from util.errors import UserError, run_command

METRICS = ("AP", "AP50", "APr", "APc", "APf")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of a run, or its log.jsonl")
    parser.add_argument("--output", type=Path, help="PNG to write (default: curves.png in the run's folder)")
    return parser.parse_args(words)


def series(
    entries: Iterable[Mapping[str, float | None]], steps: Sequence[int]
) -> dict[str, tuple[list, list]]:
    """One mapping per step -> name -> (steps, values); None is skipped."""
    lines: dict[str, tuple[list, list]] = {}
    for step, entry in zip(steps, entries, strict=True):
        for name, value in entry.items():
            if value is not None:
                x, y = lines.setdefault(name, ([], []))
                x.append(step)
                y.append(value)
    return lines


def plot_losses(axes: Axes, steps: Sequence[Mapping]) -> None:
    """The weighted total and the unweighted losses, summed by kind."""
    groups = [
        {"total": s.get("total"), **loss_groups({k: v for k, v in s["losses"].items() if v is not None})}
        for s in steps
    ]
    for name, (x, y) in series(groups, [s["step"] for s in steps]).items():
        axes.plot(x, y, label=name, color="black" if name == "total" else None)
    axes.set(title="Training losses", xlabel="step", yscale="log")
    axes.legend(fontsize=8)


def plot_rate(axes: Axes, steps: Sequence[Mapping]) -> None:
    """The largest learning rate of the parameter groups."""
    for x, y in series([{"lr": s.get("lr")} for s in steps], [s["step"] for s in steps]).values():
        axes.plot(x, y, color="tab:grey")
    axes.set(title="Learning rate", xlabel="step")


def plot_metrics(axes: Axes, epochs: Sequence[Mapping]) -> None:
    """AP on the scale 0..100, a point per evaluated epoch."""
    evaluated = [e for e in epochs if e.get("metrics")]
    percent = [
        {m: 100 * e["metrics"][m] for m in METRICS if _defined(e["metrics"].get(m))} for e in evaluated
    ]
    lines = series(percent, [e["epoch"] for e in evaluated])
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=f"{name} {y[-1]:.1f}", marker=".", linewidth=2.5 if name == "AP" else 1.2)
    axes.set(title="Validation: box AP", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    if lines:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center")


def _is_step(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has what is plotted; one that was damaged or written by hand may not."""
    numbers = entry.get("losses")
    if not isinstance(numbers, dict) or not _is_number(entry.get("step")):
        return False
    return all(v is None or _is_number(v) for v in (entry.get("total"), entry.get("lr"), *numbers.values()))


def _is_epoch(entry: Mapping[str, Any]) -> bool:
    metrics = entry.get("metrics") or {}
    if not isinstance(metrics, dict) or not _is_number(entry.get("epoch")):
        return False
    return all(v is None or _is_number(v) for v in metrics.values())


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _defined(value: float | None) -> bool:
    # -1: no ground truth of this kind.
    return value is not None and value >= 0


def main(words: list[str] | None = None) -> int:
    """Writes the PNG. Raises UserError for a log that is missing or empty."""
    args = parse_arguments(words)
    log = args.run / "log.jsonl" if args.run.is_dir() else args.run
    if not log.is_file():
        raise UserError(f"{log}: no such log. Name the --output_dir of a training run.")
    entries = read_log(log)
    steps = [e for e in entries if e.get("kind") == "step" and _is_step(e)]
    epochs = [e for e in entries if e.get("kind") == "epoch" and _is_epoch(e)]
    if not steps and not epochs:
        raise UserError(f"{log}: contains no step and no epoch.")
    figure, (losses, rate, metrics) = plt.subplots(
        1, 3, figsize=(15, 4.5), width_ratios=(5, 3, 5), layout="constrained"
    )
    if steps:
        plot_losses(losses, steps)
        plot_rate(rate, steps)
    plot_metrics(metrics, epochs)
    for axes in (losses, rate, metrics):
        axes.grid(alpha=0.3)
    output = args.output or log.parent / "curves.png"
    figure.savefig(output, dpi=110)
    plt.close(figure)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
