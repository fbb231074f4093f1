"""`curves.png` of a grid: AP and APr over the images seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from tools.ablation.results import Result
from util.files import atomic_path, writing

PLOTTED = ("AP", "APr")


def write_curves(path: Path, rows: Mapping[str, Sequence[Result]]) -> None:
    """A line a row, the mean over its runs, in a band of one standard deviation.

    Raises UserError where the file cannot be written.
    """
    figure, axes = plt.subplots(1, len(PLOTTED), figsize=(13, 5), layout="constrained")
    for name, part in zip(PLOTTED, axes, strict=True):
        _plot(part, name, rows)
    axes[0].legend(fontsize=8)
    with writing(path), atomic_path(path, durable=False) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def _plot(axes: Axes, name: str, rows: Mapping[str, Sequence[Result]]) -> None:
    for row, results in rows.items():
        values: dict[int, list[float]] = defaultdict(list)
        for point in (point for result in results for point in result.curve):
            if (value := point.metrics.get(name, -1.0)) >= 0:
                values[point.images].append(100 * value)
        x = sorted(values)
        mean = np.array([np.mean(values[images]) for images in x])
        spread = np.array([np.std(values[images]) for images in x])
        (line,) = axes.plot(x, mean, marker=".", label=row)
        axes.fill_between(x, mean - spread, mean + spread, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(title=f"Validation: box {name}", xlabel="training images seen")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
