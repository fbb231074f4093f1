"""The classes by how many training images show them, as one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from datasets.annotations.categories import Category
from datasets.annotations.frequency import group_of

# Told apart by the colour-blind too: blue, orange, red.
_COLOURS = {"f": "#4477aa", "c": "#ee9944", "r": "#cc3344"}
_LABELS = {"f": "frequent", "c": "common", "r": "rare"}
_MOST_NAMES = 60


def plot_tail(
    path: Path, categories: Sequence[Category], boxed: Mapping[int, int], labelled: Mapping[int, int]
) -> None:
    """A bar for every class, most frequent first; the image-level images as dots above them.

    boxed, labelled: category id -> images with boxes, and with a label only.
    """
    ordered = sorted(categories, key=lambda c: (-boxed.get(c.id, 0), c.name))
    groups = [group_of(c.frequency, boxed.get(c.id, 0)) for c in ordered]
    heights = [boxed.get(c.id, 0) for c in ordered]
    figure, axes = plt.subplots(figsize=(min(14, max(7, 0.35 * len(ordered) + 3)), 5), layout="constrained")
    axes.add_collection(_bars(heights, [_COLOURS[g] for g in groups]))
    axes.autoscale_view()
    dots = [(i, labelled[c.id]) for i, c in enumerate(ordered) if labelled.get(c.id)]
    if dots:
        size = 36 if len(ordered) <= _MOST_NAMES else 6
        axes.scatter(*zip(*dots, strict=True), s=size, color="black", marker="D", zorder=3)
    _describe(axes, ordered, groups, bool(dots))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(heights: Sequence[int], colours: Sequence[str]) -> PolyCollection:
    """In one object: `Axes.bar` takes seconds for the classes of LVIS."""
    half = 0.5 if len(heights) > _MOST_NAMES else 0.4
    corners = [[(i - half, 0), (i - half, h), (i + half, h), (i + half, 0)] for i, h in enumerate(heights)]
    return PolyCollection(corners, facecolors=colours)


def _describe(axes: Axes, ordered: Sequence[Category], groups: Sequence[str], dots: bool) -> None:
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set(ylabel="training images (logarithmic)", xlim=(-0.8, len(ordered) - 0.2))
    if len(ordered) <= _MOST_NAMES:
        axes.set_xticks(range(len(ordered)), [c.name for c in ordered], rotation=60, ha="right", fontsize=8)
    else:
        axes.set_xlabel("classes, most frequent first")
    counts = {g: groups.count(g) for g in "fcr" if g in groups}
    entries = [Patch(color=_COLOURS[g], label=f"{_LABELS[g]}: {n} classes") for g, n in counts.items()]
    if dots:
        entries.append(
            plt.Line2D([], [], color="black", marker="D", linestyle="", label="images with a label only")
        )
    # Outside, where it hides no class.
    axes.figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False)
    axes.set_title(f"{len(ordered)} classes by the number of training images that show them")
