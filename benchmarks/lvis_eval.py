"""Box evaluation at LVIS's size, against the `lvis` package and, where installed, faster-coco-eval.

    python benchmarks/lvis_eval.py [--json OUT] [--only PATTERN] [--quick]

Annotations and predictions are generated. Every run is a fresh process that first reads both into the form
that its evaluator takes: our columns, or their objects and lists of dicts. Then time and memory of the
evaluation alone are measured, from predictions to metrics. Runs take turns; figures are medians. All 13
metrics must be equal to those of `lvis`, to 1e-12; how far faster-coco-eval's AP is from it is printed.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.lvis_files import VAL, write_lvis
from benchmarks.lvis_predictions import draw_predictions
from benchmarks.protocol import (
    MEMORY,
    ONLY_REPORTED,
    TIME,
    Measured,
    Row,
    argument_parser,
    in_own_process,
    report,
    wanted,
)
from datasets.annotations.json_reader import read_annotations
from datasets.evaluation.lvis import evaluate_lvis
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.reference import lvis_package

PER_IMAGE = 300
LVIS, FASTER = "lvis", "faster-coco-eval"

# What `prepare` has read in this process, for the work that is measured.
_READ: list[Any] = []


class Evaluator(NamedTuple):
    """prepare: reads (annotations, predictions) files into `_READ`, unmeasured.  evaluate: metrics."""

    prepare: Callable[[Path, Path], None]
    evaluate: Callable[[], dict[str, float]]


def prepare_ours(annotations: Path, predictions: Path) -> None:
    """Columns."""
    _READ[:] = read_annotations(annotations), np.load(predictions)


def ours() -> dict[str, float]:
    annotations, rows = _READ
    return evaluate_lvis(annotations, Predictions.from_rows(rows)).metrics


def prepare_lvis(annotations: Path, predictions: Path) -> None:
    """Their annotation object and a list of dicts."""
    results = Predictions.from_rows(np.load(predictions)).to_results()
    _READ[:] = lvis_package().LVIS(str(annotations)), results


def lvis() -> dict[str, float]:
    truth, results = _READ
    package = lvis_package()
    evaluation = package.LVISEval(truth, package.LVISResults(truth, results), "bbox")
    evaluation.run()
    return {name: float(value) for name, value in evaluation.get_results().items()}


def prepare_faster(annotations: Path, predictions: Path) -> None:
    """Their annotation object and a list of dicts."""
    from faster_coco_eval import COCO

    results = Predictions.from_rows(np.load(predictions)).to_results()
    _READ[:] = COCO(str(annotations)), results


def faster() -> dict[str, float]:
    from faster_coco_eval import COCOeval_faster

    truth, results = _READ
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", lvis_style=True, print_function=len)
    evaluation.params.maxDets = [PER_IMAGE]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {"AP": float(evaluation.stats[0])}


OURS = Evaluator(prepare_ours, ours)
BASELINES = {LVIS: Evaluator(prepare_lvis, lvis), FASTER: Evaluator(prepare_faster, faster)}


def measure(evaluator: Evaluator, files: tuple[Path, Path]) -> Measured:
    """One run in its own process."""
    return in_own_process(evaluator.evaluate, prepare=partial(evaluator.prepare, *files))


def generate(folder: Path, images: int, per_image: int = PER_IMAGE) -> tuple[Path, Path, int]:
    """Annotations of so many images, predictions, and how many of them."""
    annotations, predictions = folder / f"{images}.json", folder / f"{images}x{per_image}.npy"
    write_lvis(annotations, images, round(VAL.boxes * images / VAL.images), polygons=False)
    rows = draw_predictions(read_annotations(annotations), per_image)
    np.save(predictions, rows)
    return annotations, predictions, len(rows)


def rows_of(case: str, baseline: str, runs: list[Measured], reference: list[Measured] | None) -> list[Row]:
    """Time and memory, medians."""

    def median(measured: list[Measured] | None, field: str) -> float | None:
        return statistics.median(getattr(m, field) for m in measured) if measured else None

    return [
        Row(case, baseline, metric, median(runs, field), median(reference, field))
        for metric, field in ((TIME, "seconds"), (MEMORY, "peak_bytes"))
    ]


def compared(
    case: str, files: tuple[Path, Path], baselines: list[str], repeats: int, notes: dict[str, Any]
) -> list[Row]:
    """Runs in turns, results compared. Raises SystemExit where a metric differs from `lvis`."""
    runs: dict[str, list[Measured]] = {"ours": [], **{name: [] for name in baselines}}
    for _ in range(repeats):
        runs["ours"].append(measure(OURS, files))
        for name in baselines:
            runs[name].append(measure(BASELINES[name], files))
    found = runs["ours"][0].value
    for name in baselines:
        theirs = runs[name][0].value
        worst = max(abs(found[metric] - value) for metric, value in theirs.items())
        line = f"at most {worst:.1e} over {len(theirs)} metrics"
        notes[f"difference, {case}, ours and {name}"] = line
        print(f"{case}: ours and {name} differ by {line}", flush=True)
        if name == LVIS and worst > 1e-12:
            raise SystemExit(f"{case}: the metrics differ from those of lvis")
    if not baselines:
        return rows_of(case, "none", runs["ours"], None)
    return [row for name in baselines for row in rows_of(case, name, runs["ours"], runs[name])]


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__, device=ONLY_REPORTED)
    parser.add_argument("--quick", action="store_true", help="few images, once: does it run at all")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    baselines = [LVIS]
    if importlib.util.find_spec("faster_coco_eval"):
        baselines.append(FASTER)
    else:
        print(f"{FASTER} is not installed: no row for it", flush=True)
    small, large = (30, 60) if options.quick else (2_000, VAL.images)
    cases = {f"evaluate/{count}x{PER_IMAGE}": count for count in (small, large)}
    rows: list[Row] = []
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, images in cases.items():
            if wanted(case, options.only):
                *files, count = generate(Path(folder), images)
                notes[f"predictions, {case}"] = count
                against = baselines if images == small else []
                repeats = 1 if options.quick else options.repeats
                rows += compared(case, tuple(files), against, repeats, notes)
    packages = ("numpy", "lvis", "pycocotools", FASTER)
    report(rows, device=options.device, packages=packages, json_path=options.json, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
