"""`split.json` of a run: which images of data with one split are for training, and which for validation."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.annotations.table import AnnotationTable


@dataclass(frozen=True)
class Split:
    """The file names of the images of both parts, ascending."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    @classmethod
    def of(cls, train: AnnotationTable, val: AnnotationTable) -> Split:
        """The split that made these two tables of one."""
        return cls(_names(train), _names(val))


def _names(table: AnnotationTable) -> tuple[str, ...]:
    return tuple(sorted({table.file_names[i] for i in range(len(table))}))
