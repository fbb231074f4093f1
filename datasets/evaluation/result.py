"""The outcome of a box evaluation: metrics of the data set, and of every class by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.annotations.categories import FREQUENCIES, Category
from datasets.evaluation.matching import Matches
from datasets.evaluation.precision_recall import PerClassAP, mean_or_minus_one
from util.files import atomic_write

AP_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


@dataclass(frozen=True)
class ClassResult:
    """One class. ap, ap50, recall, fixed_ap: 0..1, None without ground truth (fixed_ap: or not computed).

    frequency:   'r', 'c', 'f' or ''.
    image_count: training images that contain it, according to the annotation file.
    boxes:       annotated boxes that are not ignored.
    detections:  detections that were evaluated.
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

    metrics: name -> value in 0..1, -1 where there is no ground truth; in the order in which they are shown.
    classes: ascending by dataset id.
    images: that were evaluated.  damaged_image_ids: of those that could not be read, and are left out.
    """

    protocols: tuple[str, ...]
    metrics: dict[str, float]
    classes: tuple[ClassResult, ...]
    images: int = 0
    damaged_image_ids: tuple[int, ...] = ()

    def write(self, path: str | Path) -> None:
        """Writes everything as JSON. Raises UserError where the file cannot be written."""
        with atomic_write(path, durable=False) as file:
            file.write(json.dumps(asdict(self), indent=1) + "\n")


def average_precisions(scores: PerClassAP, categories: Sequence[Category]) -> list[float]:
    """The values of AP_METRICS, 0..1, -1 where there is no ground truth."""
    ap = scores.ap
    frequencies = np.array([c.frequency for c in categories], dtype=str)
    by_size = (ap[area] for area in (1, 2, 3))
    by_frequency = (ap[0][:, frequencies == f] for f in FREQUENCIES)
    return [mean_or_minus_one(part) for part in (ap[0], ap[0, 0], ap[0, 5], *by_size, *by_frequency)]


def class_results(
    categories: Sequence[Category], matches: Matches, scores: PerClassAP, fixed: PerClassAP | None = None
) -> tuple[ClassResult, ...]:
    """One entry per category. fixed: scores without the cap per image (Fixed AP)."""
    detections = np.bincount(matches.category_index, minlength=len(categories))
    columns = [scores.ap[0].mean(0), scores.ap[0, 0], scores.recall[0].mean(0)]
    if fixed is not None:
        columns.append(fixed.ap[0].mean(0))
    return tuple(
        ClassResult(
            category.name,
            category.frequency,
            category.image_count,
            int(matches.num_gt[0, k]),
            int(detections[k]),
            *(None if np.isnan(column[k]) else float(column[k]) for column in columns),
        )
        for k, category in enumerate(categories)
    )
