"""What a box evaluation found: metrics of the set, and of every class by its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.annotations.categories import Category
from datasets.evaluation.matching import Matches
from datasets.evaluation.precision_recall import PerClassAP


@dataclass(frozen=True)
class ClassResult:
    """One class. ap, ap50, recall, fixed_ap: 0..1, None where the class has no box (or it was not asked for).

    frequency:    'r', 'c', 'f' or ''.
    image_count:  training images that show it, by the annotation file.
    boxes:        annotated boxes that are to be found.
    detections:   those that were judged.
    """

    name: str
    frequency: str
    image_count: int | None
    boxes: int
    detections: int
    ap: float | None
    ap50: float | None
    recall: float | None
    fixed_ap: float | None = None


@dataclass(frozen=True)
class BoxResult:
    """protocols: what the metrics are, in words.

    metrics: name -> value in 0..1, -1 where no box counts.
    classes: ascending by the dataset's id.
    """

    protocols: tuple[str, ...]
    metrics: dict[str, float]
    classes: tuple[ClassResult, ...]

    def write(self, path: str | Path) -> None:
        """Everything as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def class_results(
    categories: Sequence[Category], matches: Matches, scores: PerClassAP, fixed: PerClassAP | None = None
) -> tuple[ClassResult, ...]:
    """One entry per category."""
    detections = np.bincount(matches.category, minlength=len(categories))
    columns = [scores.ap, scores.precision[0, 0], scores.recall[0].mean(0)]
    if fixed is not None:
        columns.append(fixed.ap)
    return tuple(
        ClassResult(
            category.name,
            category.frequency,
            category.image_count,
            int(matches.boxes[0, k]),
            int(detections[k]),
            *(None if np.isnan(column[k]) else float(column[k]) for column in columns),
        )
        for k, category in enumerate(categories)
    )
