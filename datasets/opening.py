"""From the paths of `--data_path` to box-annotated tables and their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.annotations.discovery import find_detection, folder_of, open_source
from datasets.annotations.frequency import COMMON, RARE, with_frequencies
from datasets.annotations.table import AnnotationTable
from datasets.images.reader import ImageFolder
from util.errors import UserError
from util.logging import get_logger


@dataclass(frozen=True)
class OpenedSplit:
    """One split. path: the file or folder that holds the annotations."""

    table: AnnotationTable
    images: ImageFolder
    path: Path


@dataclass(frozen=True)
class DetectionData:
    """train: every class has a frequency. None where it was not asked for."""

    train: OpenedSplit | None
    val: OpenedSplit


def paths_of(data_path: str | Sequence[str]) -> tuple[str, ...]:
    """The paths of one data set, written as a string, or of several."""
    return (data_path,) if isinstance(data_path, str) else tuple(data_path)


def open_detection_data(
    data_path: str | Sequence[str], dataset_file: str, *, train: bool = True, allow_outside: bool = False
) -> DetectionData:
    """The splits of the data, with the same classes.

    Raises UserError as `find_detection` does, and for a class of the validation data that training lacks.
    """
    paths = paths_of(data_path)
    if len(paths) > 1:
        raise UserError(f"--data_path names {len(paths)} folders: name one")
    val = _open_split(paths[0], "val", dataset_file, allow_outside)
    if not train:
        return DetectionData(None, val)
    opened = _open_split(paths[0], "train", dataset_file, allow_outside)
    _check_same_classes(opened.table, val.table)
    return DetectionData(_with_frequencies(opened), val)


def _open_split(path: str, split: str, dataset_file: str, allow_outside: bool) -> OpenedSplit:
    source = find_detection(path, split, dataset_file)
    table, images = open_source(source, None if allow_outside else folder_of(path))
    return OpenedSplit(table, images, source.path)


def _with_frequencies(train: OpenedSplit) -> OpenedSplit:
    """The split with a frequency for every class; logs the groups where the file does not state them all."""
    table = replace(train.table, categories=with_frequencies(train.table.categories))
    if not all(c.frequency for c in train.table.categories):
        groups = Counter(c.frequency for c in table.categories)
        get_logger().info(
            "%s: groups by training images: %d rare classes (up to %d), %d common (up to %d), %d frequent",
            table.name, groups["r"], RARE, groups["c"], COMMON, groups["f"],
        )  # fmt: skip
    return replace(train, table=table)


def _check_same_classes(train: AnnotationTable, val: AnnotationTable) -> None:
    train_names, val_names = ({c.name for c in table.categories} for table in (train, val))
    if unknown := sorted(val_names - train_names):
        raise UserError(f"class {unknown[0]!r} of {val.name} is not in {train.name} ({len(unknown)} such)")
