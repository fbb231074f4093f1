"""Objects of `images` and `annotations` become arrays, some thousand at a time; each is checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from datasets.annotations.json_errors import is_text
from util.errors import UserError

Rows = Sequence[Mapping[str, Any]]
ID_LISTS = ("neg_category_ids", "not_exhaustive_category_ids", "pos_category_ids")
_INT64 = range(-(2**63), 2**63)
# JSON's true and false are integers to Python and to numpy, and numpy reads numbers from texts.
_NUMBERS = {int, float}


def objects(key: str, value: Any) -> Rows:
    """The objects under `key`, none for null. Raises UserError where it is not a list of objects."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"`{key}` is not a list: {value!r:.40}")
    wrong = next((row for row in value if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise UserError(f"`{key}` holds {wrong!r:.40}, which is not an object")
    return value


class _Parts:
    """Named columns that grow by pieces."""

    def __init__(self, **empty: np.ndarray) -> None:
        self._parts: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self.append(**empty)

    def append(self, **columns: np.ndarray) -> None:
        """One more piece of each."""
        for name, column in columns.items():
            self._parts[name].append(column)

    def join(self, name: str) -> np.ndarray:
        """The whole column; its pieces are let go."""
        return np.concatenate(self._parts.pop(name))


class BoxRows:
    """Gathers `annotations`. Columns, in the file's order:

    owners, classes, ids: (N,) int64 image, category and annotation ids.
    boxes_xywh: (N, 4) float64.  areas: (N,) float64, NaN where the file has none.
    ignore, crowd: (N,) bool.
    """

    def __init__(self) -> None:
        number, flag = np.zeros(0, np.int64), np.zeros(0, bool)
        self._count = 0
        self._parts = _Parts(
            owners=number,
            classes=number,
            ids=number,
            boxes_xywh=np.zeros((0, 4)),
            areas=np.zeros(0),
            ignore=flag,
            crowd=flag,
        )

    def add(self, rows: Rows) -> None:
        """The next objects. Raises UserError naming the annotation and its key."""
        self._parts.append(
            owners=_integers(rows, "image_id", "annotation", self._count),
            classes=_integers(rows, "category_id", "annotation", self._count),
            ids=_integers(rows, "id", "annotation", self._count),
            boxes_xywh=_boxes(rows),
            areas=_areas(rows),
            ignore=np.array([bool(row.get("ignore")) for row in rows], bool),
            crowd=np.array([bool(row.get("iscrowd")) for row in rows], bool),
        )
        self._count += len(rows)

    def column(self, name: str) -> np.ndarray:
        """A whole column, once."""
        return self._parts.join(name)


class ImageRows:
    """Gathers `images`. Columns, in the file's order:

    ids: (I,) int64.  sizes: (I, 2) int32 height, width; 0 where the file does not say.
    For each of ID_LISTS: `KEY` (V,) int64 category ids, `KEY.rows` (V,) int64 the image (0..I-1) of each.
    """

    def __init__(self) -> None:
        number = np.zeros(0, np.int64)
        lists = {name: number for key in ID_LISTS for name in (key, f"{key}.rows")}
        self._parts = _Parts(ids=number, sizes=np.zeros((0, 2), np.int32), **lists)
        self.file_names: list[str] = []
        self.federated = False

    def add(self, rows: Rows) -> None:
        """The next objects. Raises UserError naming the image and its key."""
        first = len(self.file_names)
        self._parts.append(ids=_integers(rows, "id", "image", first), sizes=_sizes(rows))
        self.file_names += [_file_name(row) for row in rows]
        self.federated = self.federated or any("neg_category_ids" in row for row in rows)
        for key in ID_LISTS:
            lists = _lists(rows, key)
            owners = np.repeat(np.arange(first, first + len(rows)), [len(ids) for ids in lists])
            self._parts.append(**{key: _listed_ids(rows, lists, key), f"{key}.rows": owners})

    def column(self, name: str) -> np.ndarray:
        """A whole column, once."""
        return self._parts.join(name)


def _integers(rows: Rows, key: str, what: str, first: int) -> np.ndarray:
    """(len,) int64 of `row[key]`. first: number of the first row, for rows without an id."""

    def fault(position: int, value: Any) -> str:
        name = rows[position].get("id", f"number {first + position}")
        return f"{what} {name!r}: its `{key}` is {value!r}, not an integer"

    return _int64([row.get(key) for row in rows], fault)


def _lists(rows: Rows, key: str) -> list[Sequence]:
    """`row[key]` of each row, empty where there is none."""
    lists = [() if (ids := row.get(key)) is None else ids for row in rows]
    if not _kinds(lists) <= {list, tuple}:
        row = next(r for r, ids in zip(rows, lists, strict=True) if not isinstance(ids, list | tuple))
        raise UserError(f"image id {row['id']}: its `{key}` is {row[key]!r:.60}, not a list")
    return lists


def _listed_ids(rows: Rows, lists: Sequence[Sequence], key: str) -> np.ndarray:
    """(V,) int64: the lists' ids in one row."""

    def fault(position: int, value: Any) -> str:
        ends = np.cumsum([len(ids) for ids in lists])
        image = rows[int(np.searchsorted(ends, position, side="right"))]
        return f"image id {image['id']}: its `{key}` holds {value!r}, not an integer"

    return _int64(list(chain.from_iterable(lists)), fault)


def _int64(values: list, fault: Callable[[int, Any], str]) -> np.ndarray:
    if _kinds(values) <= {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:  # named below
            pass
    wrong = (i for i, v in enumerate(values) if type(v) is not int or v not in _INT64)
    position = next(wrong)
    raise UserError(fault(position, values[position]))


def _kinds(values: Iterable) -> set[type]:
    return set(map(type, values))


def _boxes(rows: Rows) -> np.ndarray:
    """(len, 4) float64 xywh."""
    boxes = [row.get("bbox") for row in rows]
    if _kinds(boxes) <= {list, tuple} and set(map(len, boxes)) <= {4}:
        numbers = list(chain.from_iterable(boxes))
        if _kinds(numbers) <= _NUMBERS and (column := _float64(numbers)) is not None:
            return column.reshape(-1, 4)
    wrong = next(row for row in rows if not _is_box(row.get("bbox")))
    raise UserError(
        f"annotation {wrong.get('id')}: bbox {wrong.get('bbox')!r:.80} is not [x, y, width, height]"
    )


def _is_box(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 4 or not _kinds(value) <= _NUMBERS:
        return False
    return _float64(list(value)) is not None


def _float64(values: list) -> np.ndarray | None:
    """None where an integer is beyond all floats."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def _areas(rows: Rows) -> np.ndarray:
    """(len,) float64, NaN where there is none."""
    areas, known = [row.get("area") for row in rows], _NUMBERS | {type(None)}
    if _kinds(areas) <= known and (column := _float64(areas)) is not None:
        return column
    wrong = next(r for r in rows if type(r.get("area")) not in known or _float64([r.get("area")]) is None)
    raise UserError(f"annotation {wrong.get('id')}: its `area` is {wrong['area']!r:.60}, not a number")


def _sizes(rows: Rows) -> np.ndarray:
    sizes = [(row.get("height") or 0, row.get("width") or 0) for row in rows]
    if _kinds(chain.from_iterable(sizes)) <= _NUMBERS:
        try:
            return np.array(sizes, np.int32).reshape(-1, 2)
        except (OverflowError, ValueError):  # named below
            pass
    wrong = next(i for i, size in enumerate(sizes) if not all(_is_pixels(v) for v in size))
    raise UserError(
        f"image id {rows[wrong].get('id')}: height {sizes[wrong][0]!r:.40} and "
        f"width {sizes[wrong][1]!r:.40} are not numbers of pixels"
    )


def _is_pixels(value: Any) -> bool:
    return type(value) in _NUMBERS and abs(value) < 2**31


def _file_name(image: Mapping[str, Any]) -> str:
    key = "file_name" if image.get("file_name") else "coco_url"
    value = image.get(key)
    if not value:
        raise UserError(f"image id {image['id']} has neither `file_name` nor `coco_url`")
    if not is_text(value):
        raise UserError(f"image id {image['id']}: its `{key}` is {value!r:.60}, not a text")
    return value if key == "file_name" else "/".join(value.split("/")[-2:])
