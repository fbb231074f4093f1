"""What LVIS, COCO and image-level JSON must hold, as types, and its rows as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.json_errors import Int64, convert, describe_fault, is_text
from datasets.annotations.json_stream import BLOCK, read_members
from datasets.annotations.outlines import box_around
from datasets.annotations.root_category import without_root
from util.errors import UserError, nearest

# Ours: the classes that were looked for in an image or, at the top of the file, in those that do not say.
LABELLED = "labelled_category_ids"
ID_LISTS = ("neg_category_ids", "not_exhaustive_category_ids", "pos_category_ids", LABELLED)
Fault = Callable[[str], None]
_SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category", LABELLED: LABELLED}

_Pixels = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Ids = tuple[Int64, ...]


class ImageRow(msgspec.Struct, gc=False):
    """An element of `images`. `null` is as good as absent."""

    id: Int64
    file_name: str | None = None
    coco_url: str | None = None
    height: _Pixels | None = None
    width: _Pixels | None = None
    neg_category_ids: _Ids | None = None
    not_exhaustive_category_ids: _Ids | None = None
    pos_category_ids: _Ids | None = None
    labelled_category_ids: _Ids | None = None

    def __post_init__(self) -> None:
        key = "file_name" if self.file_name or not self.coco_url else "coco_url"
        if not getattr(self, key):
            raise ValueError("has neither `file_name` nor `coco_url`")
        if not is_text(getattr(self, key)):
            raise ValueError(f"`{key}` holds half of a character: {getattr(self, key)!r:.60}")

    @property
    def name(self) -> str:
        """The file's name below the image folder: COCO's URLs end with it, LVIS v1 has nothing else."""
        return self.file_name or last_two_parts(self.coco_url or "")


class BoxRow(msgspec.Struct, gc=False):
    """An element of `annotations`. bbox: x, y, width, height in pixels."""

    id: Int64
    image_id: Int64
    category_id: Int64
    bbox: tuple[float, float, float, float]
    area: float | None = None
    ignore: bool | None = None
    iscrowd: bool | None = None

    @classmethod
    def from_value(cls, value: Any) -> BoxRow:
        """From a parsed element. Raises msgspec.ValidationError."""
        if not isinstance(value, Mapping) or value.get("bbox") not in (None, []):
            return convert(value, cls)
        if not value.get("segmentation"):
            raise msgspec.ValidationError("Has neither `bbox` nor `segmentation`")
        try:
            return convert({**value, "bbox": box_around(value["segmentation"])}, OutlinedRow)
        except ValueError as error:
            if isinstance(error, msgspec.ValidationError):
                raise
            raise msgspec.ValidationError(f"Has no `bbox`, and of its `segmentation`: {error}") from None


class OutlinedRow(BoxRow, gc=False):
    """An element of `annotations` without `bbox`. bbox: around its `segmentation`."""


def last_two_parts(url: str) -> str:
    """`train2017/000000000009.jpg` of a `coco_url`."""
    return "/".join(url.split("/")[-2:])


class _Columns:
    """Columns that grow by pieces."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, np.ndarray]] = []

    def column(self, name: str) -> np.ndarray:
        """The whole column, once: its pieces are let go."""
        return np.concatenate([piece.pop(name) for piece in self._pieces])


class BoxColumns(_Columns):
    """`annotations`, in the file's order.

    ids, image_ids, category_ids: (N,) int64.  boxes_xywh: (N, 4) float64.
    areas: (N,) float64, NaN where the file has none.  ignore, crowd: (N,) bool.
    outlined: how many boxes are made from their outlines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outlined = 0
        self.add([])

    def add(self, rows: Sequence[BoxRow]) -> None:
        """The next rows."""
        if OutlinedRow in set(map(type, rows)):
            self.outlined += sum(type(row) is OutlinedRow for row in rows)
        corners = chain.from_iterable(map(attrgetter("bbox"), rows))
        piece = {
            "ids": _int64(rows, "id"),
            "image_ids": _int64(rows, "image_id"),
            "category_ids": _int64(rows, "category_id"),
            "boxes_xywh": np.fromiter(corners, np.float64, 4 * len(rows)).reshape(-1, 4),
            "areas": np.array(list(map(attrgetter("area"), rows)), np.float64),
            "ignore": _flags(rows, "ignore"),
            "crowd": _flags(rows, "iscrowd"),
        }
        self._pieces.append(piece)

    def has_class(self, category_id: int) -> bool:
        """Whether any box is of it. To be asked before its column is taken."""
        return any(bool((piece["category_ids"] == category_id).any()) for piece in self._pieces)


class ImageColumns(_Columns):
    """`images`, in the file's order.

    ids: (I,) int64.  sizes: (I, 2) int32 height, width; 0 where the file does not say.
    labelled: (I,) bool, whether an image has `labelled_category_ids`, which may be empty.
    For each of ID_LISTS: `KEY` (V,) int64 category ids, `KEY.rows` (V,) int64 the image (0..I-1) of each.
    file_names: I names.  federated: whether any image has `neg_category_ids`.
    labelled_ids: `labelled_category_ids` of the whole file, None where it has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.file_names: list[str] = []
        self.federated = False
        self.labelled_ids: list[int] | None = None
        self.add([])

    def add(self, rows: Sequence[ImageRow]) -> None:
        """The next rows."""
        first = len(self.file_names)
        self.file_names += [row.name for row in rows]
        self.federated = self.federated or any(row.neg_category_ids is not None for row in rows)
        sizes = [(row.height or 0, row.width or 0) for row in rows]
        piece = {
            "ids": _int64(rows, "id"),
            "sizes": np.array(sizes, np.int32).reshape(-1, 2),
            "labelled": np.array([row.labelled_category_ids is not None for row in rows], bool),
        }
        for key in ID_LISTS:
            lists = [getattr(row, key) or () for row in rows]
            lengths = np.fromiter(map(len, lists), np.int64, len(lists))
            piece[key] = np.fromiter(chain.from_iterable(lists), np.int64, int(lengths.sum()))
            piece[f"{key}.rows"] = np.repeat(np.arange(first, first + len(rows)), lengths)
        self._pieces.append(piece)

    def add_labelled(self, ids: list[int]) -> None:
        """The next `labelled_category_ids` of the whole file."""
        self.labelled_ids = [*(self.labelled_ids or ()), *ids]


def _int64(rows: Sequence[Any], name: str) -> np.ndarray:
    return np.fromiter(map(attrgetter(name), rows), np.int64, len(rows))


def _flags(rows: Sequence[Any], name: str) -> np.ndarray:
    return np.fromiter(map(bool, map(attrgetter(name), rows)), bool, len(rows))


def read_categories(path: Path) -> list[dict[str, Any]]:
    """The `categories` of a file as they are, but for id and name, as `Category` reads these.

    Raises UserError if there are none, or one breaks the rules.
    """
    found: list[dict[str, Any]] = []
    for key, rows in read_members(path, {"categories": dict[str, Any]}, _refuse(path)):
        if key == "categories":
            found += rows or []
    if not found:
        raise UserError(f"{path}: has no `categories`")
    return [check_category(entry, path) for entry in found]


def typed_categories(path: Path | None) -> list[Category]:
    """The `categories` of a file, as `read_categories`; none where there is no file."""
    return [Category.from_json(entry) for entry in read_categories(path)] if path else []


def check_category(entry: Any, path: Path) -> dict[str, Any]:
    """The entry, with id and name as `Category` reads them. Raises UserError naming the file if it breaks the
    rules of that."""
    try:
        category = Category.from_json(entry)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return {**entry, "id": category.id, "name": category.name}


def _refuse(path: Path, fault: Fault | None = None) -> Callable[[str, Any, msgspec.ValidationError], None]:
    """Passes a line on each invalid entry to `fault`, or raises UserError with it."""

    def refuse(key: str, value: Any, error: msgspec.ValidationError) -> None:
        line = describe_fault(_SINGULAR[key], value, error)
        if fault is None:
            raise UserError(f"{path}: {line}")
        fault(line)

    return refuse


def read_columns(
    path: Path, fault: Fault | None = None, block: int = BLOCK
) -> tuple[ImageColumns, BoxColumns, list[dict[str, Any]]]:
    """The images, boxes and `categories` (as they are, but no Roboflow's root) of an annotation file.

    fault: called with a line for each entry that breaks the rules, which is then skipped; without it the
        first one is an error.
    Raises UserError naming the file, the entry and its key.
    """

    images, boxes = ImageColumns(), BoxColumns()
    categories: list[dict[str, Any]] = []
    adders: dict[str, Callable[[list], None]] = {
        "images": images.add,
        "annotations": boxes.add,
        "categories": categories.extend,
        LABELLED: images.add_labelled,
    }
    types = {"images": ImageRow, "annotations": BoxRow, "categories": dict[str, Any], LABELLED: Int64}
    seen = set()
    for key, value in read_members(path, types, _refuse(path, fault), block):
        seen.add(key)
        if key in adders and value is not None:
            if not isinstance(value, list):
                raise UserError(f"{path}: `{key}` is not a list: {value!r:.40}")
            adders[key](value)
    if not seen.issuperset(("images", "categories")):
        raise UserError(f"{path}: not an annotation file (needs `images`, `annotations` and `categories`)")
    if "annotations" not in seen and nearest("annotations", seen):
        keys = ", ".join(sorted(seen))
        raise UserError(f"{path}: has no `annotations` but {keys:.200}: rename the key that holds the boxes")
    return images, boxes, without_root(categories, boxes.has_class, path)
