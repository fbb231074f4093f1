"""Removes the boxes of rare classes from LVIS's training file, for open-vocabulary experiments.

    python tools/remove_rare.py lvis_v1_train.json

writes lvis_v1_train_norare.json (Detic's name) beside it; `--suffix rm_rare` writes
lvis_v1_train_rm_rare.json (RichSem's), `--suffix norare rm_rare` both. Images and categories stay as they
are. The file is read in pieces, so memory does not grow with its size.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec

from datasets.annotations.json_errors import Int64, convert, describe_fault
from datasets.annotations.json_schema import typed_categories
from datasets.annotations.json_stream import Entry, read_entries, write_entries
from util.errors import UserError, run_command
from util.files import atomic_write

SUFFIXES = ("norare", "rm_rare")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, help="LVIS annotations (JSON)")
    parser.add_argument("--suffix", nargs="+", choices=SUFFIXES, default=SUFFIXES[:1], help="of the new file")
    parser.add_argument("--output", type=Path, help="the file to write, instead of one named by --suffix")
    return parser.parse_args(arguments)


def rare_classes(path: Path) -> dict[int, str]:
    """Category id -> name of the rare classes. Raises UserError where no class says how frequent it is."""
    categories = typed_categories(path)
    if not any(c.frequency for c in categories):
        raise UserError(
            f"{path}: its {len(categories)} categories have no `frequency` (r, c, f); "
            "tools/category_counts.py --update adds it"
        )
    return {c.id: c.name for c in categories if c.frequency == "r"}


class BoxClass(msgspec.Struct):
    """What is needed of an element of `annotations`."""

    category_id: Int64


class WithoutRare:
    """The entries of a file without annotations of `rare` category ids; counts them as they pass."""

    def __init__(self, path: Path, rare: dict[int, str]) -> None:
        self.path, self.rare = path, rare
        self.kept = self.removed = 0

    def __iter__(self) -> Iterator[tuple[str, str, bool]]:
        for entry in read_entries(self.path):
            if entry.key == "annotations" and entry.listed:
                if self._category_id(entry) in self.rare:
                    self.removed += 1
                    continue
                self.kept += 1
            yield entry.key, entry.text, entry.listed
        if not self.kept and self.removed:
            yield "annotations", "[]", False

    def _category_id(self, entry: Entry) -> int:
        try:
            return convert(entry.value, BoxClass).category_id
        except msgspec.ValidationError as error:
            raise UserError(f"{self.path}: {describe_fault('annotation', entry.value, error)}") from None


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    rare = rare_classes(args.annotations)
    stem = args.annotations.with_suffix("")
    outputs = [args.output] if args.output else [Path(f"{stem}_{suffix}.json") for suffix in args.suffix]
    entries = WithoutRare(args.annotations, rare)
    with atomic_write(outputs[0]) as file:
        write_entries(file, entries)
    for other in outputs[1:]:
        with atomic_write(other) as file, outputs[0].open(encoding="utf-8", newline="") as first:
            shutil.copyfileobj(first, file)
    print(f"rare classes: {len(rare)}")
    print(f"boxes removed: {entries.removed}")
    print(f"boxes kept: {entries.kept}")
    for output in outputs:
        print(output)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
