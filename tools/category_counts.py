"""Counts images and boxes of every class of an annotation file, and says how frequent each is.

    python tools/category_counts.py lvis_v1_train.json

writes lvis_v1_train_cat_info.json: the file's categories with image_count, instance_count and frequency. A
frequency that is there stays, unless --new-frequency is given. LVIS's cuts: r up to 10 images, c up to 100.
The file is read entry by entry.

    python tools/category_counts.py train.json --update train.json val.json

also puts these counts into annotation files: evaluation then reports APr, APc and APf for data without them.
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

from datasets.annotations.frequency import COMMON, RARE, ClassCounts, check_category, class_of, counted
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
    parser.add_argument("--new-frequency", action="store_true", help="replace frequencies that are there")
    parser.add_argument("--update", type=Path, nargs="+", default=[], help="files to put the counts into")
    args = parser.parse_args(arguments)
    if not 0 <= args.cuts[0] <= args.cuts[1]:
        parser.error(f"argument --cuts: RARE {args.cuts[0]} is more than COMMON {args.cuts[1]}, or below 0")
    return args


def count_file(path: Path, cuts: tuple[int, int], new_frequency: bool) -> list[dict[str, Any]]:
    """The categories of a file, counted. Raises UserError where an annotation is of no listed class."""
    counts, categories = ClassCounts(), []
    for entry in read_entries(path):
        if entry.key == "categories" and entry.listed:
            categories.append(check_category(entry.value, path))
        elif entry.key == "images" and entry.listed and isinstance(entry.value, dict):
            counts.list_image(entry.value)
        elif entry.key == "annotations" and entry.listed:
            class_of(entry.value, path)
            counts.add(entry.value)
    if not categories:
        raise UserError(f"{path}: has no `categories`")
    boxes = counts.all_boxes
    if unknown := sorted(set(boxes) - {c["id"] for c in categories}):
        raise UserError(f"{path}: {boxes[unknown[0]]} annotations are of unknown class {unknown[0]}")
    if unlisted := boxes.total() - counts.boxes.total():
        print(f"{path}: {unlisted} annotations belong to images that it does not list and are not counted")
    return counted(categories, counts, cuts, new_frequency=new_frequency)


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
    categories = count_file(args.annotations, tuple(args.cuts), args.new_frequency)
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
