"""The CSV files of Open Images: boxes, verified labels and class names. Read by pieces, into columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.annotations.json_errors import is_class_name
from util.errors import UserError
from util.text_files import stream_lines

_ROWS = 10_000
_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_GROUP = {"1": True, "0": False, "-1": False, "": False}
# Beyond the edge by rounding; larger values are pixels, not fractions of the image.
_FARTHEST = 1.5

Rows = list[tuple[int, list[str]]]
"""(line, fields) of some rows, all of them as many as the head has."""


class BoxRows(NamedTuple):
    """boxes: (N, 4) float64, x1, y1, x2, y2 as fractions of the image.
    image_index, category_index: (N,) int64.  group: (N,) bool, a box around several objects.
    lines: (N,) int64, of the file.
    faults: a message for each invalid row.  others: ids of images that were not asked for."""

    boxes: np.ndarray
    image_index: np.ndarray
    category_index: np.ndarray
    group: np.ndarray
    lines: np.ndarray
    faults: list[str]
    others: set[str]

    def of_images(self, keep: np.ndarray) -> BoxRows:
        """The boxes of the images where `keep`, (I,) bool, is True, which are counted anew."""
        rows = keep[self.image_index]
        parts = {name: getattr(self, name)[rows] for name in ("boxes", "category_index", "group", "lines")}
        return self._replace(image_index=(np.cumsum(keep) - 1)[self.image_index[rows]], **parts)


class VerifiedRows(NamedTuple):
    """What people said of whole images. image_index, category_index: (V,) int64.  present: (V,) bool.
    faults, others: as in `BoxRows`."""

    image_index: np.ndarray
    category_index: np.ndarray
    present: np.ndarray
    faults: list[str]
    others: set[str]


def read_boxes(path: Path, images: Mapping[str, int], classes: Mapping[str, int]) -> BoxRows:
    """The boxes of the given images. images: image id -> index.  classes: label (`/m/01g317`) -> index.

    Raises UserError where the file cannot be read or lacks a column.
    """
    faults: list[str] = []
    others: set[str] = set()
    pieces: list[tuple[np.ndarray, ...]] = []
    for rows, at in _pieces(path, ("ImageID", "LabelName", *_CORNERS), faults, optional=("IsGroupOf",)):
        kept: list[tuple[int, int, int, bool]] = []
        corners: list[tuple[str, ...]] = []
        identity_at, label_at, group_at = at["ImageID"], at["LabelName"], at.get("IsGroupOf")
        corners_of = itemgetter(*(at[key] for key in _CORNERS))
        for line, fields in rows:
            image = images.get(fields[identity_at])
            if image is None:
                others.add(fields[identity_at])
                continue
            label, group = fields[label_at], "" if group_at is None else fields[group_at]
            if label not in classes:
                faults.append(f"{path} line {line}: the class {label!r:.40} is in no list of classes")
            elif group not in _GROUP:
                faults.append(f"{path} line {line}: IsGroupOf is {group!r:.40}, not 0 or 1")
            else:
                kept.append((image, classes[label], line, _GROUP[group]))
                corners.append(corners_of(fields))
        boxes = _numbers(corners)
        valid = (np.abs(boxes) <= _FARTHEST).all(1)
        for row in np.flatnonzero(~valid).tolist():
            said = ", ".join(f"{key} {text!r:.20}" for key, text in zip(_CORNERS, corners[row], strict=True))
            faults.append(f"{path} line {kept[row][2]}: {said} are not fractions of the image, 0..1")
        columns = np.array(kept, np.int64).reshape(-1, 4)[valid]
        pieces.append((boxes[valid], columns))
    boxes = np.concatenate([piece[0] for piece in pieces] or [np.zeros((0, 4))])
    columns = np.concatenate([piece[1] for piece in pieces] or [np.zeros((0, 4), np.int64)])
    image, category, lines, group = columns.T
    return BoxRows(boxes, image, category, group.astype(bool), lines, faults, others)


def read_verified(path: Path, images: Mapping[str, int], classes: Mapping[str, int]) -> VerifiedRows:
    """Labels of other classes are left out. Arguments and errors as in `read_boxes`."""
    faults: list[str] = []
    others: set[str] = set()
    found: list[tuple[int, int, bool]] = []
    for rows, at in _pieces(path, ("ImageID", "LabelName", "Confidence"), faults):
        for line, fields in rows:
            image, category = images.get(fields[at["ImageID"]]), classes.get(fields[at["LabelName"]])
            confidence = fields[at["Confidence"]]
            if image is None:
                others.add(fields[at["ImageID"]])
            elif confidence not in ("0", "0.0", "1", "1.0"):
                faults.append(f"{path} line {line}: Confidence is {confidence!r:.40}, not 0 or 1")
            elif category is not None:
                found.append((image, category, confidence[0] == "1"))
    image_index, category_index, present = np.array(found, np.int64).reshape(-1, 3).T
    return VerifiedRows(image_index, category_index, present.astype(bool), faults, others)


def column_values(path: Path, column: str) -> set[str]:
    """The different values of a column. Raises UserError like `read_boxes`."""
    return {fields[at[column]] for rows, at in _pieces(path, (column,), []) for _, fields in rows}


def read_class_names(path: Path) -> dict[str, str]:
    """Label -> name, in the file's order. Raises UserError where it cannot be read, for a row that is not
    `label,name`, and a label that is listed twice."""
    names: dict[str, str] = {}
    for line, fields in _rows(path):
        if line == 1 and fields[:1] == ["LabelName"]:
            continue
        if len(fields) < 2 or not fields[0].strip() or not is_class_name(fields[1].strip()):
            raise UserError(f"{path} line {line}: {','.join(fields)!r:.60} is not `label,name`")
        label = fields[0].strip()
        if label in names:
            raise UserError(f"{path} line {line}: the label {label!r:.40} is listed twice")
        names[label] = fields[1].strip()
    return names


def _pieces(
    path: Path, columns: Sequence[str], faults: list[str], optional: Sequence[str] = ()
) -> Iterator[tuple[Rows, dict[str, int]]]:
    """Some rows at a time, and the place of each column by the file's head. Rows of another length are
    faults."""
    rows = _rows(path)
    _, head = next(rows, (0, []))
    head = [name.strip() for name in head]
    for name in columns:
        if name not in head:
            raise UserError(f"{path}: has no column {name!r}, but {', '.join(head):.200}")
    at = {name: head.index(name) for name in (*columns, *optional) if name in head}
    while piece := list(islice(rows, _ROWS)):
        whole = [row for row in piece if len(row[1]) == len(head)]
        if len(whole) < len(piece):
            faults += [
                f"{path} line {line}: {len(fields)} values, not {len(head)} as in the first line"
                for line, fields in piece
                if len(fields) != len(head)
            ]
        yield whole, at


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row that is not empty."""
    reader = csv.reader(stream_lines(path), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: is no CSV ({error})") from None


def _numbers(texts: list[tuple[str, ...]]) -> np.ndarray:
    """(n, 4) float64, NaN for what is no number."""
    try:
        values = np.fromiter(map(float, chain.from_iterable(texts)), np.float64, 4 * len(texts))
        return values.reshape(-1, 4)
    except ValueError:
        return np.array([[_number(text) for text in row] for row in texts])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
