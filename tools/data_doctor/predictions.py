"""Checks of a predictions file against the validation split: as what an evaluation would take it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.hints import hints
from datasets.evaluation.predictions import Predictions, read_predictions
from tools.data_doctor.findings import Finding, Severity, found, warnings_as_findings

NOTE, WARNING, ERROR = Severity
_EXAMPLES = 1000


def check_predictions(path: Path, annotations: AnnotationTable) -> list[Finding]:
    """What stops an evaluation of the file, what it drops, and what looks like a mistake."""
    findings: list[Finding] = []
    where, predictions = path.name, None
    with warnings_as_findings(where, findings):
        predictions = read_predictions(path)
    if predictions is None:
        return findings
    if not len(predictions):
        return [*findings, Finding(ERROR, where, "there are no predictions", "is it the right file?")]
    findings += _check_rows(where, annotations, predictions)
    if all(finding.severity < ERROR for finding in findings) or _many_unknown(annotations, predictions):
        findings += [Finding(WARNING, where, hint) for hint in hints(annotations, predictions)]
    number, images = len(predictions), len(np.unique(predictions.image_ids))
    what = f"{number:,} predictions of {images:,} of {len(annotations):,} images of {annotations.name}"
    return [*findings, Finding(NOTE, where, what)]


def _many_unknown(annotations: AnnotationTable, predictions: Predictions) -> bool:
    return not np.isin(predictions.image_ids, annotations.image_ids).all()


def _check_rows(where: str, annotations: AnnotationTable, predictions: Predictions) -> Iterator[Finding]:
    def rows(what: str, severity: Severity, chosen: np.ndarray, remedy: str) -> Iterator[Finding]:
        numbers = np.flatnonzero(chosen)
        examples = [_name(predictions, row) for row in numbers[:_EXAMPLES].tolist()]
        for finding in found(severity, where, what, examples, remedy):
            shown = what.format(n=f"{len(numbers):,}")
            yield Finding(severity, where, shown, remedy, examples, finding.kind, len(numbers))

    unknown = ~np.isin(predictions.image_ids, annotations.image_ids)
    yield from rows("{n} predictions are of images that are not listed", ERROR, unknown,
                    "an evaluation stops: write the ids of the annotation file")  # fmt: skip
    yield from rows("{n} scores are not finite", ERROR, ~np.isfinite(predictions.scores),
                    "an evaluation stops: they cannot be ranked")  # fmt: skip
    yield from rows("{n} predictions are of classes that are not listed", WARNING,
                    ~np.isin(predictions.category_ids, annotations.category_ids),
                    "they are dropped: write the ids of the annotation file")  # fmt: skip
    sided = np.all(predictions.boxes_xywh()[:, 2:] > 0, axis=1)
    yield from rows("{n} predicted boxes have no area", WARNING, np.logical_not(sided),
                    "they match nothing: bbox is x, y, width, height in pixels")  # fmt: skip


def _name(predictions: Predictions, row: int) -> str:
    return (
        f"number {row}: image_id {predictions.image_ids[row]}, category_id {predictions.category_ids[row]}, "
        f"score {predictions.scores[row]:g}"
    )
