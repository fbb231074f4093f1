"""Looks for what is wrong with data, before time is spent on training.

    python tools/doctor.py DATA

DATA and --imagenet-path are what main.py gets as --data_path and imagenet_path: LVIS, COCO, YOLO, and a JSON
or folders of classes for the image-level images. Reads the annotations and the head of every image
(--decode: all of it); draws the classes by frequency as a PNG. Each finding comes with its remedy.

Exit status: 0 nothing is wrong, 1 warnings (training goes on, with less data), 2 errors (training or
evaluation would stop, or its numbers would mean nothing).
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotations.categories import Category
from datasets.annotations.discovery import (
    detection_paths,
    image_level_paths,
    image_root,
    open_detection,
    open_image_level,
)
from datasets.images.reader import ImageFolder
from tools.data_doctor.annotations import check_annotations, check_classes_of_both
from tools.data_doctor.findings import Finding, Severity, warnings_as_findings
from tools.data_doctor.image_level import check_image_level, count_image_level
from tools.data_doctor.images import ImageReport, check_both, check_images
from tools.data_doctor.split import RawSplit, read_split
from tools.data_doctor.tail import plot_tail
from util.errors import UserError, run_command
from util.files import atomic_write


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="as --data_path of main.py")
    parser.add_argument("--imagenet-path", default="", help="as imagenet_path (default: beside DATA)")
    parser.add_argument("--dataset-file", default="lvis", choices=("lvis", "lvis_openvocab", "coco"))
    parser.add_argument("--decode", action="store_true", help="decode every image, to find any damage")
    parser.add_argument("--plot", type=Path, default=Path("tail.png"), help="PNG (default: tail.png)")
    parser.add_argument("--json", type=Path, help="also write all findings, with every example, to this file")
    return parser.parse_args(arguments)


@dataclass
class Examination:
    """What was asked for, and what was found so far."""

    args: argparse.Namespace
    findings: list[Finding] = field(default_factory=list)

    def split(self, name: str) -> tuple[RawSplit | None, ImageReport | None]:
        """Examines 'train' or 'val': its annotations and its images."""
        args, before = self.args, len(self.findings)
        raw = yolo = looked = None
        with warnings_as_findings(name, self.findings):
            paths = detection_paths(args.data, name, args.dataset_file)
            raw, yolo = read_split(name, paths)
        if raw is None:
            return None, None
        self.findings += check_annotations(raw)
        with warnings_as_findings(name, self.findings):
            files = ImageFolder(yolo.root if yolo else image_root(paths, raw))
            files.open_archives()
            looked = check_images(name, files, raw.file_names, raw.sizes, args.decode)
        if looked is not None:
            self.findings += looked.findings(Severity.ERROR if name == "val" else Severity.WARNING)
        if all(f.severity < Severity.ERROR for f in self.findings[before:]):
            # What the checks do not know of, the reader of the training may.
            with warnings_as_findings(name, self.findings, warnings=False):
                open_detection(args.data, name, args.dataset_file)
        return raw, looked

    def image_level(self, categories: tuple[Category, ...]) -> tuple[Counter, ImageReport | None]:
        """Examines the image-level images. Their number by category id, and what was seen of them."""
        args, counts, looked = self.args, None, None
        try:
            image_level_paths(args.data, args.imagenet_path)
        except UserError as error:
            severity = Severity.ERROR if args.imagenet_path else Severity.NOTE
            self.findings.append(Finding(severity, "image-level", str(error)))
            return Counter(), None
        with warnings_as_findings("image-level", self.findings):
            annotations, files = open_image_level(args.data, args.imagenet_path)
            counts = count_image_level(annotations, categories)
            names = [annotations.file_names[i] for i in range(len(annotations))]
            sizes = [tuple(size) for size in annotations.sizes.tolist()]
            looked = check_images("image-level", files, names, sizes, args.decode)
        if counts is None or looked is None:
            return Counter(), None
        self.findings += check_image_level(counts, categories)
        self.findings += looked.findings(Severity.WARNING)
        return counts.images, looked

    def plot(self, categories: tuple[Category, ...], boxed: Counter, labelled: Counter) -> None:
        """Draws the histogram; that it cannot be written is a finding like others."""
        try:
            self.args.plot.parent.mkdir(parents=True, exist_ok=True)
            plot_tail(self.args.plot, categories, boxed, labelled)
        except (OSError, ValueError) as error:
            what = f"{self.args.plot}: the plot cannot be written ({error})"
            self.findings.append(Finding(Severity.WARNING, "plot", what, "give --plot a PNG's place"))


def examine(args: argparse.Namespace) -> list[Finding]:
    """All findings, worst first; draws the histogram where there are classes."""
    examination = Examination(args)
    (train, train_seen), (val, val_seen) = (examination.split(name) for name in ("train", "val"))
    if train is not None and val is not None:
        examination.findings += check_classes_of_both(train, val)
    categories = ()
    with warnings_as_findings("train", examination.findings, warnings=False):
        categories = tuple(Category.from_json(c) for c in train.categories) if train else ()
    if categories:
        labelled, level_seen = examination.image_level(categories)
        examination.plot(categories, train.images_by_class(), labelled)
        pairs = [(seen, val_seen) for seen in (train_seen, level_seen) if seen and val_seen]
        for seen, against in pairs:
            examination.findings += check_both(seen, against)
    return sorted(examination.findings, key=lambda f: -f.severity)


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    findings = examine(args)
    for finding in findings:
        print(finding)
    counts = Counter(f.severity for f in findings)
    print(", ".join(f"{counts[s]} {s.name.lower()}s" for s in reversed(Severity)))
    if args.plot.is_file():
        print(args.plot)
    if args.json:
        with atomic_write(args.json) as file:
            json.dump([f.to_json() for f in findings], file, indent=1)
    return max((int(f.severity) for f in findings), default=0)


if __name__ == "__main__":
    sys.exit(run_command(main))
