"""Finds what is wrong with data, before you spend time on training.

    python tools/doctor.py DATA

DATA and --imagenet_path are what main.py takes as --data_path and imagenet_path: any format that it reads
(docs/data.md). Reads the annotations and the header of every image (--decode: all of it); draws the classes
by frequency as a PNG. Each finding comes with its fix.

Exit status: 0 nothing is wrong, 1 warnings (training runs, with less data), 2 errors (training or evaluation
would stop, or its metrics would be meaningless).
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from config import Config
from datasets.annotations.categories import Category
from datasets.annotations.discovery import (
    find_detection,
    find_image_level,
    folder_of,
    open_detection,
    open_image_level,
)
from datasets.annotations.source import IMAGE_LEVEL, RawAnnotations
from datasets.images.reader import ImageFolder
from tools.data_doctor.annotations import check_annotations, check_classes_of_both
from tools.data_doctor.findings import Finding, Severity, warnings_as_findings
from tools.data_doctor.image_level import check_image_level, count_image_level
from tools.data_doctor.images import ImageReport, check_both, check_images
from tools.data_doctor.machine import check_shared_memory
from tools.data_doctor.report import headline, report, terminal_width
from tools.data_doctor.tail import plot_tail
from util.errors import UserError, run_command
from util.files import atomic_write


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="as --data_path of main.py")
    parser.add_argument("--imagenet_path", default="", help="as imagenet_path (default: beside DATA)")
    parser.add_argument("--dataset_file", default="lvis", choices=("lvis", "lvis_openvocab", "coco"))
    parser.add_argument("--allow_outside", action="store_true", help="as --allow_outside of main.py")
    parser.add_argument("--decode", action="store_true", help="decode every image, to find any damage")
    parser.add_argument("--plot", type=Path, default=Path("tail.png"), help="PNG (default: tail.png)")
    parser.add_argument("--all", action="store_true", help="print every example, one a line")
    parser.add_argument("--json", type=Path, help="also write all findings, with every example, to this file")
    return parser.parse_args(arguments)


@dataclass
class Examination:
    """The arguments, and the findings so far."""

    args: argparse.Namespace
    findings: list[Finding] = field(default_factory=list)

    def split(self, name: str) -> tuple[RawAnnotations | None, ImageReport | None]:
        """Examines 'train' or 'val': its annotations and its images."""
        args, before = self.args, len(self.findings)
        raw = report = None
        with warnings_as_findings(name, self.findings):
            source = find_detection(args.data, name, args.dataset_file)
            raw = source.check()
        if raw is None:
            return None, None
        self.findings += check_annotations(name, raw)
        with warnings_as_findings(name, self.findings):
            inside = None if args.allow_outside else folder_of(args.data)
            files = ImageFolder(source.image_root(raw.file_names), inside)
            files.open_archives()
            report = check_images(name, files, raw.file_names, _pairs(raw.sizes), args.decode)
        if report is not None:
            self.findings += report.findings(Config().max_damaged_share)
        if all(f.severity < Severity.ERROR for f in self.findings[before:]):
            # The reader may refuse what the checks do not know.
            with warnings_as_findings(name, self.findings, warnings=False):
                open_detection(args.data, name, args.dataset_file, allow_outside=args.allow_outside)
        return raw, report

    def image_level(self, categories: tuple[Category, ...]) -> tuple[Counter, ImageReport | None]:
        """Examines the image-level images: how many each category id has, and what is wrong with them."""
        args, counts, report = self.args, None, None
        try:
            find_image_level(args.data, args.imagenet_path)
        except UserError as error:
            severity = Severity.ERROR if args.imagenet_path else Severity.NOTE
            self.findings.append(Finding(severity, IMAGE_LEVEL, str(error)))
            return Counter(), None
        with warnings_as_findings(IMAGE_LEVEL, self.findings):
            annotations, files = open_image_level(
                args.data, args.imagenet_path, allow_outside=args.allow_outside
            )
            counts = count_image_level(annotations, categories)
            names = [annotations.file_names[i] for i in range(len(annotations))]
            report = check_images(IMAGE_LEVEL, files, names, _pairs(annotations.sizes), args.decode)
        if counts is None or report is None:
            return Counter(), None
        self.findings += check_image_level(counts, categories)
        self.findings += report.findings(Config().max_damaged_share)
        return counts.images_of_category, report

    def plot(self, categories: Sequence[Category], boxed: Counter, labelled: Counter) -> None:
        """Draws the histogram; failing to write it is a finding like any other."""
        try:
            self.args.plot.parent.mkdir(parents=True, exist_ok=True)
            plot_tail(self.args.plot, categories, boxed, labelled)
        except (OSError, ValueError) as error:
            what = f"{self.args.plot}: the plot cannot be written ({error})"
            self.findings.append(Finding(Severity.WARNING, "plot", what, "give --plot the path of a PNG"))


def examine(args: argparse.Namespace) -> list[Finding]:
    """All findings, worst first; draws the histogram where there are classes."""
    examination = Examination(args, [*check_shared_memory(Config())])
    (train, train_seen), (val, val_seen) = (examination.split(name) for name in ("train", "val"))
    if train is not None and val is not None:
        examination.findings += check_classes_of_both(train, val)
    if train is not None and train.categories:
        labelled, level_seen = examination.image_level(tuple(train.categories))
        examination.plot(train.categories, _images_of_category(train), labelled)
        pairs = [(seen, val_seen) for seen in (train_seen, level_seen) if seen and val_seen]
        for seen, against in pairs:
            examination.findings += check_both(seen, against)
    return sorted(examination.findings, key=lambda f: -f.severity)


def _pairs(sizes: np.ndarray) -> list[tuple[int, int]]:
    return [(height, width) for height, width in sizes.tolist()]


def _images_of_category(raw: RawAnnotations) -> Counter[int]:
    """Category id -> images with a box of it."""
    pairs = np.unique(np.stack([raw.box_category_ids, raw.box_image_ids]), axis=1)
    return Counter(pairs[0].tolist())


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    start = time.monotonic()
    findings = examine(args)
    print(report(findings, terminal_width(), every_example=args.all))
    print(f"\n{headline(findings)} {time.monotonic() - start:.1f} s.")
    if args.plot.is_file():
        print(args.plot)
    if args.json:
        with atomic_write(args.json) as file:
            json.dump([f.to_json() for f in findings], file, indent=1)
    return max((int(f.severity) for f in findings), default=0)


if __name__ == "__main__":
    sys.exit(run_command(main))
