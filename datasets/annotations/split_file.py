"""`split.json` of a run: which images of data with one split are for training, and which for validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from datasets.annotations.table import AnnotationTable
from util.errors import UserError, first_line
from util.files import atomic_write

SPLIT_FILE = "split.json"


@dataclass(frozen=True)
class Split:
    """The file names of the images of both parts, ascending."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    @classmethod
    def of(cls, train: AnnotationTable, val: AnnotationTable) -> Split:
        """The split that made these two tables of one."""
        return cls(_names(train), _names(val))

    def extended(self, new: Split) -> Split:
        """With the images of a later one. Those that are gone keep their place for when they come back."""
        return Split(*(tuple(sorted({*a, *b})) for a, b in ((self.train, new.train), (self.val, new.val))))


@dataclass(frozen=True)
class SplitFile:
    """What the file holds.

    val_share, seed: how images are divided that it does not name yet.
    sets: the split of each data set by the set's name.
    """

    val_share: float
    seed: int
    sets: Mapping[str, Split] = field(default_factory=dict)

    def key_of(self, name: str, *, alone: bool) -> str:
        """What a set is called here: by its name, as long as it is not called otherwise.

        alone: no other set is read. Its folder may then have been renamed, or other sets may have been
            read with it and made its name longer.
        """
        if name in self.sets or not alone:
            return name
        found = [known for known in self.sets if len(self.sets) == 1 or known.endswith(f"-{name}")]
        return found[0] if len(found) == 1 else name

    def parts(self, table: AnnotationTable) -> tuple[AnnotationTable, AnnotationTable]:
        """The training and the validation part of a table that one of the splits divides.

        Raises UserError where none does, for example because images were added since.
        """
        names = [table.file_names[i] for i in range(len(table))]
        for split in self.sets.values():
            if set(names) <= {*split.train, *split.val}:
                for_val = set(split.val)
                val = np.array([name in for_val for name in names], dtype=bool)
                return table.select(~val), table.select(val)
        raise UserError(f"{table.name}: not the data that {SPLIT_FILE} divides, or changed since")

    def write(self, folder: Path) -> None:
        """Writes the file. Raises UserError where that is not possible."""
        with atomic_write(folder / SPLIT_FILE) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n")

    @classmethod
    def read(cls, folder: Path) -> SplitFile | None:
        """The file in a folder; None where it has none. Raises UserError as `open` does."""
        path = folder / SPLIT_FILE
        return cls.open(path) if path.is_file() else None

    @classmethod
    def open(cls, path: Path) -> SplitFile:
        """The file at a path. Raises UserError for one that is no split."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.MsgspecError, OSError, RecursionError, ValueError) as error:
            reason = first_line(error)
            raise UserError(f"{path}: cannot be read ({reason}); restore it, or start a new run") from None
        if not 0 < found.val_share < 1:
            raise UserError(f"{path}: val_share is {found.val_share:g}, but must be between 0 and 1")
        for split in found.sets.values():
            if both := sorted(set(split.train) & set(split.val)):
                raise UserError(f"{path}: {both[0]!r:.100} is in both `train` and `val` ({len(both)} such)")
        return found


def _names(table: AnnotationTable) -> tuple[str, ...]:
    return tuple(sorted({table.file_names[i] for i in range(len(table))}))
