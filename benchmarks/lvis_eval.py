"""Box evaluation at LVIS's size, against lvis, hotcoco, vernier and faster-coco-eval.

    pip install -r benchmarks/requirements.txt
    python benchmarks/lvis_eval.py [--json OUT] [--only PATTERN] [--quick]

Annotations and predictions are generated. Every run is a fresh process that first reads both into the
fastest form that its evaluator takes: our columns, a float64 matrix (hotcoco, vernier), a list of dicts
(lvis, faster-coco-eval). Then the evaluation alone is measured, from predictions to metrics: wall clock, CPU
seconds of all threads (cases that end in /cpu), memory. Runs take turns; figures are medians. Every metric
must equal the baseline's to 1e-12: all 13 of LVIS, of faster-coco-eval its AP. The full size is left to
evaluators that need minutes and gigabytes at most.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
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
from datasets.evaluation.lvis import METRICS, evaluate_lvis
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.reference import lvis_package

PER_IMAGE = 300
TOLERANCE = 1e-12

# What `prepare` has read in this process, for the work that is measured.
_READ: list[Any] = []


class Evaluator(NamedTuple):
    """prepare: reads (annotations, predictions) files into `_READ`, unmeasured.  evaluate: -> metrics.

    module: what must be importable.  full_size: takes part at LVIS's full size.
    """

    prepare: Callable[[Path, Path], None]
    evaluate: Callable[[], dict[str, float]]
    module: str = ""
    full_size: bool = False


def prepare_ours(annotations: Path, predictions: Path) -> None:
    _READ[:] = read_annotations(annotations), np.load(predictions)


def ours() -> dict[str, float]:
    annotations, rows = _READ
    return evaluate_lvis(annotations, Predictions.from_rows(rows)).metrics


def prepare_lvis(annotations: Path, predictions: Path) -> None:
    _READ[:] = lvis_package().LVIS(str(annotations)), _dicts(predictions)


def lvis() -> dict[str, float]:
    gt, results = _READ
    package = lvis_package()
    evaluation = package.LVISEval(gt, package.LVISResults(gt, results), "bbox")
    evaluation.run()
    return {name: float(value) for name, value in evaluation.get_results().items()}


def prepare_faster(annotations: Path, predictions: Path) -> None:
    from faster_coco_eval import COCO

    _READ[:] = COCO(str(annotations)), _dicts(predictions)


def faster() -> dict[str, float]:
    from faster_coco_eval import COCOeval_faster

    gt, results = _READ
    evaluation = COCOeval_faster(gt, gt.loadRes(results), "bbox", lvis_style=True, print_function=len)
    evaluation.params.maxDets = [PER_IMAGE]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {"AP": float(evaluation.stats[0])}


def prepare_hotcoco(annotations: Path, predictions: Path) -> None:
    import hotcoco

    _READ[:] = hotcoco.LVIS(str(annotations)), _matrix(predictions)


def hotcoco() -> dict[str, float]:
    import hotcoco

    gt, matrix = _READ
    evaluation = hotcoco.LVISEval(gt, hotcoco.LVISResults(gt, matrix), "bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.run()
    return dict(evaluation.get_results())


def prepare_vernier(annotations: Path, predictions: Path) -> None:
    from vernier.instance import CocoDataset

    _READ[:] = CocoDataset.from_lvis_json(annotations.read_bytes()), _matrix(predictions)


def vernier() -> dict[str, float]:
    # The public Evaluator of 0.5.4 has COCO's 12 metrics only; this is what computes LVIS's.
    from vernier._core import evaluate_bbox_grid

    gt, matrix = _READ
    grid = evaluate_bbox_grid(
        gt,
        matrix,
        parity_mode="strict",
        max_dets_per_image=PER_IMAGE,
        use_cats=True,
        num_threads=int(os.environ["RAYON_NUM_THREADS"]),
    )
    stats = grid.accumulate([PER_IMAGE]).summarize_lvis(gt, [PER_IMAGE]).stats
    return dict(zip(METRICS, stats, strict=True))


def _dicts(predictions: Path) -> list[dict[str, Any]]:
    return Predictions.from_rows(np.load(predictions)).to_results()


def _matrix(predictions: Path) -> np.ndarray:
    """(N, 7) float64: image_id, x, y, width, height, score, category_id."""
    found = Predictions.from_rows(np.load(predictions))
    return np.column_stack((found.image_ids, found.boxes_xywh(), found.scores, found.category_ids))


OURS = Evaluator(prepare_ours, ours)
BASELINES = {
    "lvis": Evaluator(prepare_lvis, lvis, "lvis"),
    "faster-coco-eval": Evaluator(prepare_faster, faster, "faster_coco_eval"),
    "hotcoco": Evaluator(prepare_hotcoco, hotcoco, "hotcoco", full_size=True),
    "vernier": Evaluator(prepare_vernier, vernier, "vernier", full_size=True),
}


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
    """Wall clock, CPU seconds and memory, medians."""

    def median(measured: list[Measured] | None, field: str) -> float | None:
        return statistics.median(getattr(m, field) for m in measured) if measured else None

    figures = ((case, TIME, "seconds"), (f"{case}/cpu", TIME, "cpu_seconds"), (case, MEMORY, "peak_bytes"))
    return [
        Row(name, baseline, metric, median(runs, field), median(reference, field))
        for name, metric, field in figures
    ]


def compared(
    case: str, files: tuple[Path, Path], baselines: list[str], repeats: int, notes: dict[str, Any]
) -> list[Row]:
    """Runs in turns. Raises SystemExit where a metric differs from a baseline's."""
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
        if not worst <= TOLERANCE:
            raise SystemExit(f"{case}: the metrics differ from those of {name}")
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
    # The Rust evaluators run on as many threads as we may use.
    os.environ["RAYON_NUM_THREADS"] = str(torch.get_num_threads())
    baselines = [name for name, baseline in BASELINES.items() if importlib.util.find_spec(baseline.module)]
    for name in BASELINES.keys() - set(baselines):
        print(f"{name} is not installed: no row for it", flush=True)
    small, large = (30, 60) if options.quick else (2_000, VAL.images)
    cases = {f"evaluate/{count}x{PER_IMAGE}": count for count in (small, large)}
    rows: list[Row] = []
    notes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case, images in cases.items():
            if wanted(case, options.only):
                *files, count = generate(Path(folder), images)
                notes[f"predictions, {case}"] = count
                against = [name for name in baselines if images == small or BASELINES[name].full_size]
                repeats = 1 if options.quick else options.repeats
                rows += compared(case, tuple(files), against, repeats, notes)
    packages = ("numpy", "pycocotools", *BASELINES)
    report(rows, device=options.device, packages=packages, json_path=options.json, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
