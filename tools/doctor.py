"""Finds what is wrong with data, before you spend time on training.

    python tools/doctor.py DATA

DATA and --imagenet_path are what main.py takes as --data_path and imagenet_path: any format that it reads
(docs/data.md). Reads the annotations and the header of every image (--decode: all of it); draws the classes
by frequency as a PNG. Each finding comes with its fix. Several paths: each data set by itself, then what they
say of one another.

Exit status: 0 nothing is wrong, 1 warnings (training runs, with less data), 2 errors (training or evaluation
would stop, or its metrics would be meaningless).
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import Config, load, parse_options, with_overrides
from datasets.annotations.categories import Category
from datasets.opening import set_names
from tools.data_doctor.classes import image_counts
from tools.data_doctor.copies import check_copies
from tools.data_doctor.examination import Examination, Reading
from tools.data_doctor.findings import Finding, Severity
from tools.data_doctor.machine import check_shared_memory
from tools.data_doctor.part import Part
from tools.data_doctor.predictions import check_predictions
from tools.data_doctor.report import headline, report, terminal_width
from tools.data_doctor.several import unite, united_counts
from tools.data_doctor.start import check_start
from tools.data_doctor.tail import plot_tail
from util.errors import run_command
from util.files import atomic_write


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="as --data_path of main.py: one path, or several")
    parser.add_argument("-c", "--config_file", default="", help="config file of the run (default: none)")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="as --options of main.py"
    )
    parser.add_argument("--imagenet_path", default="", help="as imagenet_path (default: beside DATA)")
    parser.add_argument("--dataset_file", default="lvis", choices=("lvis", "lvis_openvocab", "coco"))
    parser.add_argument("--allow_outside", action="store_true", help="as --allow_outside of main.py")
    parser.add_argument("--decode", action="store_true", help="decode every image, to find any damage")
    parser.add_argument("--predictions", type=Path, help="also check predictions of the validation images "
                        "(results JSON, predictions.npy, .npz)")  # fmt: skip
    parser.add_argument("--plot", type=Path, default=Path("tail.png"), help="PNG (default: tail.png)")
    parser.add_argument("--all", action="store_true", help="print every example, one a line")
    parser.add_argument("--json", type=Path, help="also write all findings, with every example, to this file")
    return parser.parse_args(arguments)


def examine(args: argparse.Namespace) -> list[Finding]:
    """All findings, worst first; draws the histogram where there are classes.

    Raises UserError for a config that is none, and for a data set that is named twice.
    """
    config = _config(args)
    names = set_names(args.data) if len(args.data) > 1 else [""]
    reading = Reading(
        config,
        args.dataset_file,
        args.allow_outside,
        args.decode,
        val_required=len(names) == 1 and not config.val_share,
    )
    findings = [*check_shared_memory(config)]
    examinations = [Examination(path, reading, name) for path, name in zip(args.data, names, strict=True)]
    for examination in examinations:
        examination.run()
        findings += examination.findings
    parts = [part for examination in examinations for part in examination.parts]
    union, more = unite(parts) if len(names) > 1 else (None, [])
    class_names = union.class_names if union is not None else {}
    findings += more
    findings += check_copies(parts, lambda set_name, name: class_names.get(set_name, {}).get(name, name))
    if all(finding.severity < Severity.ERROR for finding in findings):
        image_level = any(part.is_image_level for part in parts)
        findings += check_start(args.data, reading, image_level=image_level)
    if args.predictions is not None:
        findings += _predictions(args.predictions, parts)
    if union is not None:
        findings += _plot(args.plot, union.categories, united_counts(union, parts), {})
    elif (raw := examinations[0].training) is not None:
        findings += _plot(args.plot, raw.categories, image_counts(raw), examinations[0].labelled)
    return sorted(findings, key=lambda finding: -finding.severity)


def _config(args: argparse.Namespace) -> Config:
    options = parse_options(args.options)
    if args.imagenet_path:
        options["imagenet_path"] = args.imagenet_path
    return load(args.config_file, options) if args.config_file else with_overrides(Config(), options)


def _predictions(path: Path, parts: Sequence[Part]) -> list[Finding]:
    """What is wrong with predictions of the first validation split."""
    table = next((part.table for part in parts if part.is_validation), None)
    if table is None:
        what = "the predictions cannot be checked: there are no validation annotations"
        return [Finding(Severity.WARNING, path.name, what)]
    return check_predictions(path, table)


def _plot(
    path: Path, categories: Sequence[Category], boxed: Mapping[int, int], labelled: Mapping[int, int]
) -> list[Finding]:
    """Draws the histogram; failing to write it is a finding like any other. Arguments of `plot_tail`."""
    if not categories:
        return []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_tail(path, categories, boxed, labelled)
    except (OSError, ValueError) as error:
        what = f"{path}: the plot cannot be written ({error})"
        return [Finding(Severity.WARNING, "plot", what, "give --plot the path of a PNG")]
    return []


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    start = time.monotonic()
    findings = examine(args)
    folder = str(args.data[0]) if len(args.data) == 1 else ""
    print(report(findings, terminal_width(), every_example=args.all, folder=folder))
    print(f"\n{headline(findings)} {time.monotonic() - start:.1f} s.")
    if args.plot.is_file():
        print(args.plot)
    if args.json:
        with atomic_write(args.json) as file:
            json.dump([f.to_json() for f in findings], file, indent=1)
    return max((int(f.severity) for f in findings), default=0)


if __name__ == "__main__":
    sys.exit(run_command(main))
