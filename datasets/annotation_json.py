"""Reads LVIS, COCO and image-level JSON into columns. The only place that knows their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datasets.classes import Category
from datasets.json_file import load_json
from datasets.store import AnnotationStore, PackedStrings, Ragged, count_pictures, offsets_of
from util.errors import UserError
from util.logging import get_logger

Rows = Sequence[Mapping[str, Any]]


def read_annotations(path: str | Path) -> AnnotationStore:
    """Reads an annotation file; polygons are skipped.

    File names are `file_name`, else the last two parts of `coco_url` (LVIS v1). Boxes of pictures that the
    file does not list are left out, counted and reported. A category without `image_count` gets its count
    here. Raises UserError naming the file and the id for a file that is missing, half-written or of another
    format, an empty class list, ids that are no integers or occur twice, and an annotation of an unknown
    class.
    """
    path = Path(path)
    content = load_json(path)
    if not isinstance(content, dict) or "images" not in content or "categories" not in content:
        raise UserError(f"{path}: not an annotation file (needs `images`, `annotations` and `categories`)")
    try:
        return store_from_content(content, path.name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def store_from_content(content: Mapping[str, Any], name: str) -> AnnotationStore:
    """`read_annotations` for JSON content that is in memory. `name` is used in messages."""
    categories = _categories(content["categories"])
    category_ids = np.array([c.id for c in categories], dtype=np.int64)
    images: Rows = content["images"]
    image_ids = _unique_ids(images, "picture")
    order = np.argsort(image_ids)
    images = [images[i] for i in order]
    image_ids = image_ids[order]
    boxes = _boxes(content.get("annotations") or [], image_ids, category_ids, name)
    if any(c.image_count is None for c in categories):
        pictures = np.repeat(np.arange(len(images)), np.diff(boxes["box_offsets"]))
        counts = count_pictures(boxes["category_index"], pictures, len(categories))
        categories = tuple(replace(c, image_count=int(n)) for c, n in zip(categories, counts, strict=True))
    return AnnotationStore(
        name=name,
        categories=categories,
        image_ids=image_ids,
        sizes=np.array([(i.get("height") or 0, i.get("width") or 0) for i in images], np.int32).reshape(
            -1, 2
        ),
        file_names=PackedStrings.pack([_file_name(image) for image in images]),
        negatives=_id_lists(images, "neg_category_ids", category_ids),
        not_exhaustive=_id_lists(images, "not_exhaustive_category_ids", category_ids),
        positives=_id_lists(images, "pos_category_ids", category_ids, strict=True),
        federated=any("neg_category_ids" in image for image in images),
        **boxes,
    )


def _categories(entries: Rows) -> tuple[Category, ...]:
    if not entries:
        raise UserError("the class list is empty: `categories` has no entry")
    categories = sorted((Category.from_json(entry) for entry in entries), key=lambda c: c.id)
    for before, after in pairwise(categories):
        if before.id == after.id:
            raise UserError(f"category id {after.id} is listed twice ({before.name!r} and {after.name!r})")
    return tuple(categories)


def _boxes(
    annotations: Rows, image_ids: np.ndarray, category_ids: np.ndarray, name: str
) -> dict[str, np.ndarray]:
    """The box columns of AnnotationStore, grouped by picture, in the file's order within a picture."""
    owners = _integers(annotations, "image_id", "annotation")
    classes = _integers(annotations, "category_id", "annotation")
    identities = _integers(annotations, "id", "annotation")
    category_index = np.searchsorted(category_ids, classes).clip(max=len(category_ids) - 1)
    unknown = np.flatnonzero(category_ids[category_index] != classes)
    if len(unknown):
        raise UserError(
            f"annotation {identities[unknown[0]]} is of category id {classes[unknown[0]]}, which "
            f"`categories` does not list ({len(unknown)} such annotations; ids run "
            f"{category_ids[0]}..{category_ids[-1]})"
        )
    boxes = _box_array(annotations)
    areas = np.array([a.get("area", np.nan) for a in annotations], dtype=np.float64)
    areas = np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas)
    picture = np.searchsorted(image_ids, owners).clip(max=max(len(image_ids) - 1, 0))
    listed = image_ids[picture] == owners if len(image_ids) else np.zeros(len(owners), bool)
    if not listed.all():
        first = np.flatnonzero(~listed)[0]
        get_logger().warning(
            "%s: %d annotations belong to pictures that it does not list and are left out "
            "(first: annotation %d of picture %d)",
            name,
            np.count_nonzero(~listed),
            identities[first],
            owners[first],
        )
    rows = np.flatnonzero(listed)
    rows = rows[np.argsort(picture[rows], kind="stable")]
    return {
        "box_offsets": offsets_of(np.bincount(picture[rows], minlength=len(image_ids))),
        "boxes_xywh": boxes[rows],
        "areas": areas[rows],
        "category_index": category_index[rows].astype(np.int32),
        "annotation_ids": identities[rows],
        "ignore": np.array([bool(a.get("ignore")) for a in annotations], dtype=bool)[rows],
        "crowd": np.array([bool(a.get("iscrowd")) for a in annotations], dtype=bool)[rows],
    }


def _box_array(annotations: Rows) -> np.ndarray:
    """(N, 4) float64 xywh."""
    try:
        return np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(len(annotations), 4)
    except (KeyError, TypeError, ValueError):
        for annotation in annotations:
            box = annotation.get("bbox")
            numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
            if not numbers:
                raise UserError(
                    f"annotation {annotation.get('id')}: bbox {box!r} is not [x, y, width, height]"
                ) from None
        raise


def _integers(entries: Rows, key: str, what: str) -> np.ndarray:
    """(len,) int64 of `entry[key]`. Raises UserError naming the first entry where it is no integer."""
    values = [entry.get(key) for entry in entries]
    column = np.array(values) if values else np.zeros(0, np.int64)
    if column.dtype.kind == "i":
        return column.astype(np.int64)
    position, value = next((i, v) for i, v in enumerate(values) if not isinstance(v, int))
    name = entries[position].get("id", f"number {position}")
    raise UserError(f"{what} {name!r}: its `{key}` is {value!r}, not an integer")


def _unique_ids(images: Rows, what: str) -> np.ndarray:
    ids = _integers(images, "id", what)
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise UserError(f"{what} id {values[counts > 1][0]} is listed {counts.max()} times")
    return ids


def _file_name(image: Mapping[str, Any]) -> str:
    if image.get("file_name"):
        return image["file_name"]
    if image.get("coco_url"):
        return "/".join(image["coco_url"].split("/")[-2:])
    raise UserError(f"picture id {image['id']} has neither `file_name` nor `coco_url`")


def _id_lists(images: Rows, key: str, category_ids: np.ndarray, strict: bool = False) -> Ragged:
    """Category ids by picture, as indices. Ids of no category are dropped, an error where `strict`."""
    lists = [image.get(key) or () for image in images]
    rows = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
    values = np.array([identity for ids in lists for identity in ids], dtype=np.int64)
    index = np.searchsorted(category_ids, values).clip(max=len(category_ids) - 1)
    known = category_ids[index] == values
    if strict and not known.all():
        first = np.flatnonzero(~known)[0]
        raise UserError(
            f"picture id {images[rows[first]]['id']}: category id {values[first]} of its `{key}` is not "
            f"listed in `categories` ({np.count_nonzero(~known)} such)"
        )
    return Ragged.from_rows(rows[known], index[known].astype(np.int32), len(lists))
