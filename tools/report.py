"""The tail report of an evaluation: one HTML file that opens without network, and every number as JSON.

    python tools/report.py RUN [RUN2] --output report.html [--json report.json] [--csv classes.csv]

RUN is a run folder or the --output_dir of `main.py --eval`; no model is loaded. With RUN2, differences are
RUN2 minus RUN, with intervals of a paired bootstrap over the validation images.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.tail_report.content import replicates, report_content
from tools.tail_report.evaluation import open_evaluations
from tools.tail_report.page import page_of
from util.errors import run_command
from util.files import atomic_write
from util.logging import setup_logging

_CSV_COLUMNS = (
    "name",
    "group",
    "train_images",
    "image_level_images",
    "images",
    "boxes",
    "detections",
    "ap",
    "ap50",
    "recall",
)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run, or two to compare")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    parser.add_argument("--csv", type=Path, help="also write the classes to this file, a row each")
    parser.add_argument(
        "--annotations",
        type=Path,
        help="validation annotations (JSON), where the evaluation does not say, or they have moved",
    )
    parser.add_argument("--image_folder", type=Path, help="folder of the validation images, if moved")
    parser.add_argument("--bootstrap", type=replicates, default=500, help="replicates (default: 500)")
    parser.add_argument("--worst", type=int, default=12, help="worst images to draw (default: 12)")
    args = parser.parse_args(words)
    if len(args.runs) > 2:
        parser.error(f"two runs at most are compared, not {len(args.runs)}")
    if args.worst < 0:
        parser.error(f"argument --worst: {args.worst} is below 0")
    return args


def write_csv(path: Path, content: dict[str, Any]) -> None:
    """A row for each class: its counts and metrics, the interval of AP, the error split, the difference."""
    kinds = content["kinds"]
    differences = content.get("difference", {}).get("classes", [])
    header = [*_CSV_COLUMNS, "ap_low", "ap_high", *(f"lacks_{kind}" for kind in kinds)]
    header += ["difference", "difference_low", "difference_high", "verdict"] if differences else []
    with atomic_write(path, durable=False) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, entry in enumerate(content["classes"]):
            row = [entry[name] for name in _CSV_COLUMNS] + [*(entry["interval"] or (None, None))]
            row += [(entry["share"] or {}).get(kind) for kind in kinds]
            if differences:
                other = differences[number]
                row += [other["ap"], *(other["interval"] or (None, None)), other["verdict"]]
            writer.writerow(row)


def main(words: list[str] | None = None) -> int:
    """Writes the files. Raises UserError for runs that cannot be reported."""
    args = parse_arguments(words)
    setup_logging()
    evaluations = open_evaluations(args.runs, args.annotations, args.image_folder)
    content = report_content(evaluations, args.bootstrap, args.worst)
    with atomic_write(args.output, durable=False) as file:
        file.write(page_of(content))
    if args.json:
        with atomic_write(args.json, durable=False) as file:
            json.dump(content, file)
            file.write("\n")
    if args.csv:
        write_csv(args.csv, content)
    for run in (content, content.get("compared")):
        if run:
            print(f"{run['name']}: AP {100 * run['AP']:.4f}" if run["AP"] >= 0 else f"{run['name']}: AP -")
    for path in (args.output, args.json, args.csv):
        if path:
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
