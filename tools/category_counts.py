"""Counts the images and boxes of every class of an annotation file, and sets how frequent each is.

    python tools/category_counts.py lvis_v1_train.json

writes lvis_v1_train_cat_info.json: the file's categories with image_count, instance_count and frequency. An
existing frequency stays, unless --new_frequency is given. LVIS's cuts: r up to 10 images, c up to 100.
The file is read in pieces.

    python tools/category_counts.py train.json --update train.json val.json

also writes these counts into annotation files: evaluation without a model then reports APr, APc and APf.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotations.frequency import COMMON, RARE, count_classes
from datasets.annotations.json_schema import check_category
from datasets.annotations.json_stream import Entry, read_entries, write_entries
from util.errors import UserError, run_command
from util.files import atomic_write

COUNTS = ("image_count", "instance_count", "frequency")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="LVIS or COCO annotations (JSON), as a rule train")
    parser.add_argument("--output", type=Path, help="default: FILE_cat_info.json")
    parser.add_argument(
        "--cuts",
        nargs=2,
        type=int,
        default=(RARE, COMMON),
        metavar=("RARE", "COMMON"),
        help="most training images of a rare and of a common class (default: LVIS's 10 100)",
    )
    parser.add_argument("--new_frequency", action="store_true", help="replace frequencies that are there")
    parser.add_argument("--update", type=Path, nargs="+", default=[], help="files to put the counts into")
    args = parser.parse_args(arguments)
    if not 0 <= args.cuts[0] <= args.cuts[1]:
        parser.error(f"argument --cuts: RARE {args.cuts[0]} is more than COMMON {args.cuts[1]}, or below 0")
    return args


def updated(path: Path, categories: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """The entries of a file, its categories with the counts of those of the same name."""
    for entry in read_entries(path):
        text = entry.text
        if entry.key == "categories" and entry.listed:
            text = json.dumps(_with_counts(entry, categories, path))
        yield entry.key, text, entry.listed


def _with_counts(entry: Entry, categories: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, Any]:
    name = check_category(entry.value, path)["name"]
    if name not in categories:
        raise UserError(f"{path}: class {name!r} is not among the {len(categories)} that were counted")
    return entry.value | {key: categories[name][key] for key in COUNTS}


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    categories = count_classes(args.annotations, tuple(args.cuts), new_frequency=args.new_frequency)
    output = args.output or Path(f"{args.annotations.with_suffix('')}_cat_info.json")
    by_name = {c["name"]: c for c in categories}
    # All or none: a fault in the last file leaves the first as it was.
    with ExitStack() as stack:
        json.dump(categories, stack.enter_context(atomic_write(output)))
        for path in args.update:
            write_entries(stack.enter_context(atomic_write(path)), updated(path, by_name))
    groups = Counter(c["frequency"] for c in categories)
    images = sorted(c["image_count"] for c in categories)
    print(f"classes: {len(categories)} ({', '.join(f'{groups[g]} {g}' for g in 'rcf')})")
    print(f"without boxes: {images.count(0)}")
    print(f"boxes: {sum(c['instance_count'] for c in categories)}")
    print(f"images a class: {images[0]} to {images[-1]}, median {images[len(images) // 2]}")
    for path in (output, *args.update):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
