"""The tail report at LVIS's size: time and memory of tools/report.py, of one run and of two.

    python benchmarks/report.py [--json OUT] [--only PATTERN] [--quick]

Annotations and predictions are generated (benchmarks/lvis_files.py, benchmarks/lvis_predictions.py), images
are not. Every report is made in a fresh process, from files to files; its AP must equal the evaluator's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.lvis_files import VAL, write_lvis
from benchmarks.lvis_predictions import draw_predictions
from benchmarks.protocol import (
    MEMORY,
    ONLY_REPORTED,
    TIME,
    Row,
    argument_parser,
    in_own_process,
    report,
    wanted,
)
from datasets.annotations.json_reader import read_annotations
from datasets.evaluation.dataset_record import record_of
from datasets.evaluation.evaluator import evaluate_boxes
from datasets.evaluation.predictions import Predictions

PER_IMAGE = 300


def generate(folder: Path, images: int) -> list[Path]:
    """The output folders of two evaluations on the same annotations."""
    path = folder / "val.json"
    write_lvis(path, images, round(VAL.boxes * images / VAL.images), polygons=False)
    annotations = read_annotations(path)
    runs = []
    for seed in (0, 1):
        run = folder / f"run{seed}"
        (run / "eval").mkdir(parents=True)
        np.save(run / "eval" / "predictions.npy", draw_predictions(annotations, PER_IMAGE, seed))
        record_of(annotations, paths=[path]).write(run / "eval")
        runs.append(run)
    return runs


def make_report(words: list[str]) -> None:
    """As a user would; imported here, so that the memory is all of the report's."""
    from tools.report import main

    main(words)


def evaluators_ap(run: Path) -> float:
    annotations = read_annotations(run.parent / "val.json")
    rows = np.load(run / "eval" / "predictions.npy", mmap_mode="r")
    return evaluate_boxes(annotations, Predictions.from_rows(rows)).metrics["AP"]


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__, device=ONLY_REPORTED, threads=False)
    parser.add_argument("--quick", action="store_true", help="few images: does it run at all")
    options = parser.parse_args(arguments)
    images = 60 if options.quick else VAL.images
    rows, notes = [], {}
    with tempfile.TemporaryDirectory() as folder:
        runs = generate(Path(folder), images)
        expected = evaluators_ap(runs[0])
        for name, number in (("one_run", 1), ("two_runs", 2)):
            case = f"report/{name}/{images}x{PER_IMAGE}"
            if not wanted(case, options.only):
                continue
            page, numbers = (Path(folder) / f"{name}{suffix}" for suffix in (".html", ".json"))
            words = [*map(str, runs[:number]), "--output", str(page), "--json", str(numbers)]
            words += ["--annotations", str(Path(folder) / "val.json")]
            measured = in_own_process(make_report, words)
            rows.append(Row(case, "none", TIME, measured.seconds, None))
            rows.append(Row(f"{case}/cpu", "none", TIME, measured.cpu_seconds, None))
            rows.append(Row(case, "none", MEMORY, measured.peak_bytes, None))
            notes[f"bytes of the page, {case}"] = page.stat().st_size
            if (found := json.loads(numbers.read_text())["AP"]) != expected:
                raise SystemExit(f"{case}: AP is {found}, the evaluator's {expected}")
    report(rows, device=options.device, packages=("numpy",), json_path=options.json, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
