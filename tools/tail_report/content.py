"""Everything that a report says, as plain numbers: what --json writes and what the page draws.

Metrics, shares and precisions are 0..1; None is undefined (no ground truth), except in `metrics`, where it is
-1 as in the evaluator's own files.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.evaluation.calibration import MIN_SCORE, Calibration, calibrate
from datasets.evaluation.confusions import Confusions, confusions
from datasets.evaluation.curves import precision_curves
from datasets.evaluation.error_split import KINDS, ErrorSplit, split_errors
from datasets.evaluation.judged import Judged, judge
from datasets.evaluation.result import BoxResult
from datasets.evaluation.weighted_ap import bootstrap, interval
from tools.tail_report.evaluation import Evaluation
from tools.tail_report.groups import Grouping, group_classes
from tools.tail_report.worst_images import worst_images

# IoU 0.5 and 0.75, as indices of the thresholds.
AT_50, AT_75 = 0, 5
# A class on fewer validation images has no interval of its own: they are too few to say how they vary.
FEWEST_IMAGES = 5
LEVEL = 0.95
_FEWEST_REPLICATES, _MOST_REPLICATES = 20, 100_000
_CONFUSED_WITH = 5
_TOO_FEW = "too few images"


@dataclass(frozen=True)
class _Run:
    evaluation: Evaluation
    result: BoxResult
    judged: Judged
    replicas: np.ndarray


def replicates(text: str) -> int:
    """A command line's number of bootstrap replicates."""
    number = int(text)
    if not _FEWEST_REPLICATES <= number <= _MOST_REPLICATES:
        raise ArgumentTypeError(f"{number} is not in {_FEWEST_REPLICATES}..{_MOST_REPLICATES}")
    return number


def report_content(evaluations: Sequence[Evaluation], replicates: int, num_images: int) -> dict[str, Any]:
    """The content of a report of one run, or of a run and another that it is compared with.

    The second stands under `compared`, in the same form; `difference` is the second minus the first.
    replicates: of the bootstrap.  num_images: worst images.
    """
    outcomes = [judge(e.annotations, e.predictions) for e in evaluations]
    replicas = bootstrap([judged for _, judged in outcomes], replicates)
    runs = [_Run(e, *o, r) for e, o, r in zip(evaluations, outcomes, replicas, strict=True)]
    grouping = group_classes(evaluations[0].record.classes)
    content = _run_content(runs[0], grouping, num_images)
    content |= _data_content(evaluations[0], grouping, outcomes[0][1])
    content["bootstrap"] = {"replicates": replicates, "level": LEVEL, "fewest_images": FEWEST_IMAGES}
    if len(runs) > 1:
        content["compared"] = _run_content(runs[1], grouping, num_images)
        content["difference"] = difference(runs[0], runs[1], grouping)
    return content


def _data_content(evaluation: Evaluation, grouping: Grouping, judged: Judged) -> dict[str, Any]:
    annotations = evaluation.annotations
    return {
        "annotations": {
            "file": evaluation.record.annotations,
            "images": len(annotations),
            "boxes": int(judged.num_boxes.sum()),
            "classes": len(annotations.categories),
            "federated": annotations.federated,
            "groups": grouping.source,
        },
        "kinds": list(KINDS),
    }


def _run_content(run: _Run, grouping: Grouping, num_images: int) -> dict[str, Any]:
    judged, evaluation = run.judged, run.evaluation
    split = split_errors(judged)
    confused = confusions(evaluation.annotations, evaluation.predictions, judged)
    names = [c.name for c in evaluation.annotations.categories]
    return {
        "name": evaluation.name,
        "folder": str(evaluation.folder.resolve()),
        "AP": run.result.metrics["AP"],
        "protocols": list(run.result.protocols),
        "metrics": run.result.metrics,
        "groups": [_group(run, split, *group) for group in grouping.groups()],
        "classes": _classes(run, split, confused, grouping),
        "confusions": [
            {"true": names[t], "detected": names[d], "boxes": int(n), "judged": int(j)}
            for t, d, n, j in zip(
                confused.true, confused.detected, confused.boxes, confused.judged, strict=True
            )
        ],
        "calibration_min_score": MIN_SCORE,
        "worst_images": worst_images(evaluation, judged, num_images),
    }


def _group(run: _Run, split: ErrorSplit, key: str, label: str, members: np.ndarray) -> dict[str, Any]:
    ap, ap50 = (_column(run.result, name) for name in ("ap", "ap50"))
    evaluated = members & np.isfinite(ap)
    images = _images_with(run.judged, members)
    # Too few images cannot say how images vary.
    ends = _ap_interval(_group_replicas(run.replicas, evaluated))
    content = {
        "key": key,
        "name": label,
        "classes": int(members.sum()),
        "evaluated": int(evaluated.sum()),
        "images": images,
        "boxes": int(run.judged.num_boxes[members].sum()),
        "ap": _mean(ap, evaluated),
        "ap50": _mean(ap50, evaluated),
        "interval": ends if images >= FEWEST_IMAGES else None,
        "calibration": _calibration(calibrate(run.judged, members)),
    }
    for name in ("share", "share50", "alone", "alone50"):
        values = getattr(split, name)
        content[name] = _by_kind([_mean(row, evaluated) for row in values])
    content["counts"] = _by_kind([int(row[evaluated].sum()) for row in split.counts])
    return content


def _classes(run: _Run, split: ErrorSplit, confused: Confusions, grouping: Grouping) -> list[dict[str, Any]]:
    judged, classes = run.judged, run.result.classes
    images = judged.images_of_class
    curves = {"precision50": AT_50, "precision75": AT_75}
    found = {name: precision_curves(judged, at) for name, at in curves.items()}
    entries = []
    for k, (result, recorded) in enumerate(zip(classes, run.evaluation.record.classes, strict=True)):
        few = images[k] < FEWEST_IMAGES
        entry: dict[str, Any] = {
            "name": result.name,
            "group": grouping.keys[k],
            "train_images": recorded.train_images,
            "image_level_images": recorded.image_level_images,
            "images": int(images[k]),
            "boxes": result.boxes,
            "detections": result.detections,
            "ap": result.ap,
            "ap50": result.ap50,
            "recall": result.recall,
            "interval": None if few or result.ap is None else _ap_interval(run.replicas[:, k]),
        }
        for name in ("share", "share50", "alone", "alone50", "counts"):
            entry[name] = None if result.ap is None else _by_kind(_plain(getattr(split, name)[:, k]))
        entry["right"], entry["nothing"] = int(confused.right[k]), int(confused.nothing[k])
        entry["confused_with"] = []
        for name, (precision, scores) in found.items():
            entry[name] = _curve(precision[k])
            if name == "precision50":
                entry["score50"] = _curve(scores[k])
        entries.append(entry)
    for t, d, n, j in zip(confused.true, confused.detected, confused.boxes, confused.judged, strict=True):
        listed = entries[t]["confused_with"]
        if len(listed) < _CONFUSED_WITH:
            listed.append({"name": classes[d].name, "boxes": int(n), "judged": int(j)})
    return entries


def difference(first: _Run, second: _Run, grouping: Grouping) -> dict[str, Any]:
    """Second minus first, with intervals of the paired bootstrap: both see the same weights of the images."""
    ap = _column(second.result, "ap") - _column(first.result, "ap")
    replicas = second.replicas - first.replicas
    evaluated = np.isfinite(ap)
    enough = evaluated & (first.judged.images_of_class >= FEWEST_IMAGES)
    verdicts = _verdicts(ap, replicas, enough)
    groups = []
    for key, label, members in grouping.groups():
        used = members & evaluated
        few = _images_with(first.judged, used) < FEWEST_IMAGES
        ends = None if few else _interval(_group_replicas(replicas, used))
        groups.append(
            {
                "key": key,
                "name": label,
                "ap": _mean(ap, used),
                "interval": ends,
                "verdict": _verdict_of(ends),
                "better": sum(verdicts[k] == "better" for k in np.flatnonzero(members)),
                "worse": sum(verdicts[k] == "worse" for k in np.flatnonzero(members)),
            }
        )
    classes = [
        {
            "name": result.name,
            "ap": _number(ap[k]),
            "interval": _interval(replicas[:, k]) if enough[k] else None,
            "verdict": verdicts[k],
        }
        for k, result in enumerate(first.result.classes)
    ]
    return {"of": second.evaluation.name, "from": first.evaluation.name, "groups": groups, "classes": classes}


def _verdicts(ap: np.ndarray, replicas: np.ndarray, enough: np.ndarray) -> list[str]:
    """'better', 'worse', 'noise', 'too few images' or '' (not evaluated) for each class.

    Of 1,203 classes 60 would leave a 95 % interval by chance. So the false discovery rate is held at 5 %
    (Benjamini and Hochberg 1995), with p-values of a normal distribution as wide as the replicas.
    """
    number = np.flatnonzero(enough)
    spread = replicas[:, number].std(0)
    size = np.abs(ap[number])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(size > 0, size / spread, 0.0)
    p = np.array([math.erfc(value / math.sqrt(2)) for value in z])
    order = np.argsort(p)
    passed = np.flatnonzero(p[order] <= (1 - LEVEL) * np.arange(1, len(p) + 1) / max(len(p), 1))
    real = set(number[order[: passed[-1] + 1]].tolist()) if len(passed) else set()
    verdicts = []
    for k, value in enumerate(ap):
        if not np.isfinite(value):
            verdicts.append("")
        elif not enough[k]:
            verdicts.append(_TOO_FEW)
        else:
            verdicts.append(("better" if value > 0 else "worse") if k in real else "noise")
    return verdicts


def _verdict_of(ends: list[float] | None) -> str:
    if ends is None:
        return _TOO_FEW
    return "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "noise"


def _images_with(judged: Judged, members: np.ndarray) -> int:
    boxes = judged.boxes
    return len(np.unique(boxes.image_index[boxes.counted & members[boxes.class_index]]))


def _column(result: BoxResult, name: str) -> np.ndarray:
    """(K,) float64, NaN where undefined."""
    return np.array([getattr(c, name) for c in result.classes], dtype=np.float64)


def _group_replicas(replicas: np.ndarray, evaluated: np.ndarray) -> np.ndarray:
    return replicas[:, evaluated].mean(1) if evaluated.any() else np.zeros(0)


def _interval(replicas: np.ndarray) -> list[float] | None:
    return list(interval(replicas, LEVEL)) if len(replicas) else None


def _ap_interval(replicas: np.ndarray) -> list[float] | None:
    """An AP is never below 0 or above 1."""
    ends = _interval(replicas)
    return None if ends is None else [max(ends[0], 0.0), min(ends[1], 1.0)]


def _mean(values: np.ndarray, members: np.ndarray) -> float | None:
    return float(values[members].mean()) if members.any() else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(values: np.ndarray) -> list[Any]:
    return values.tolist()


def _by_kind(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(KINDS, values, strict=True))


def _curve(values: np.ndarray) -> list[float]:
    """Up to the last recall level that is reached."""
    return np.round(values[np.isfinite(values)], 4).tolist()


def _calibration(found: Calibration) -> dict[str, Any]:
    return {
        "error": _number(found.error),
        "count": found.count.tolist(),
        "score": [_number(v) for v in found.score],
        "precision": [_number(v) for v in found.precision],
    }
