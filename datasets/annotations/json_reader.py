"""Reads LVIS, COCO and image-level JSON into an AnnotationTable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.json_schema import ID_LISTS, LABELLED, BoxColumns, ImageColumns, read_columns
from datasets.annotations.table import AnnotationTable, with_image_counts
from datasets.columns import PackedStrings, Ragged, offsets_of
from util.errors import UserError


def read_annotations(path: str | Path) -> AnnotationTable:
    """Reads an annotation file piece by piece; polygons are skipped, except where there is no `bbox`.

    File names are `file_name`, else the last two parts of `coco_url` (LVIS v1). A category without
    `image_count` gets its count here. Boxes of images that the file does not list are skipped; these,
    annotation ids that occur twice and images that are listed under two ids are counted and reported.
    Raises UserError naming the file and the id for a file that is missing, half-written or of another format,
    an empty class list, image or category ids that occur twice, an entry that breaks the rules of
    `json_schema`, and an annotation of an unknown class.
    """
    path = Path(path)
    images, boxes, categories = read_columns(path)
    try:
        table = _assemble(images, boxes, _categories(categories), path.name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    table.report_warnings()
    return table


def _assemble(
    images: ImageColumns, boxes: BoxColumns, categories: tuple[Category, ...], name: str
) -> AnnotationTable:
    category_ids = np.array([c.id for c in categories], dtype=np.int64)
    ids = images.column("ids")
    order = np.argsort(ids, kind="stable")
    image_ids = ids[order]
    _forbid_repeated_images(image_ids)
    box_columns, warnings = _box_columns(boxes, image_ids, category_ids)
    image_index = np.repeat(np.arange(len(ids)), np.diff(box_columns["box_offsets"]))
    categories = with_image_counts(categories, box_columns["category_index"], image_index)
    negatives, not_exhaustive, positives, labelled = (
        _id_lists(images, key, order, image_ids, category_ids) for key in ID_LISTS
    )
    judged, judged_list = _judged_lists(labelled, images, order, category_ids)
    return AnnotationTable(
        name=name,
        categories=categories,
        image_ids=image_ids,
        sizes=images.column("sizes")[order],
        file_names=PackedStrings.pack([images.file_names[i] for i in order]),
        negatives=negatives,
        not_exhaustive=not_exhaustive,
        positives=positives,
        judged=judged,
        judged_list=judged_list,
        federated=images.federated or bool((judged_list >= 0).any()),
        warnings=(*warnings, *_repeated_names(images.file_names)),
        **box_columns,
    )


def _categories(entries: Sequence[Any]) -> tuple[Category, ...]:
    if not entries:
        raise UserError("the class list is empty: `categories` has no entry")
    categories = sorted((Category.from_json(entry) for entry in entries), key=lambda c: c.id)
    for before, after in pairwise(categories):
        if before.id == after.id:
            raise UserError(f"category id {after.id} is listed twice ({before.name!r} and {after.name!r})")
    return tuple(categories)


def _forbid_repeated_images(image_ids: np.ndarray) -> None:
    values, counts = np.unique(image_ids, return_counts=True)
    if len(values) < len(image_ids):
        first = np.argmax(counts > 1)
        raise UserError(f"image id {values[first]} is listed {counts[first]} times")


def _box_columns(
    boxes: BoxColumns, image_ids: np.ndarray, category_ids: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The box columns of AnnotationTable, grouped by image, in the file's order within an image.

    With what is to be reported about them.
    """
    owners, classes, identities = (boxes.column(name) for name in ("image_ids", "category_ids", "ids"))
    category_index = np.searchsorted(category_ids, classes).clip(max=len(category_ids) - 1)
    unknown = np.flatnonzero(category_ids[category_index] != classes)
    if len(unknown):
        raise UserError(
            f"annotation {identities[unknown[0]]} is of category id {classes[unknown[0]]}, which "
            f"`categories` does not list ({len(unknown)} such annotations; ids run "
            f"{category_ids[0]}..{category_ids[-1]})"
        )
    image = np.searchsorted(image_ids, owners).clip(max=max(len(image_ids) - 1, 0))
    listed = image_ids[image] == owners if len(image_ids) else np.zeros(len(owners), bool)
    warnings = [
        *_outlined(boxes.outlined),
        *_unlisted(listed, identities, owners),
        *_repeated_annotations(identities),
    ]
    rows = np.flatnonzero(listed)
    rows = rows[np.argsort(image[rows], kind="stable")]
    boxes_xywh, areas = boxes.column("boxes_xywh")[rows], boxes.column("areas")[rows]
    columns = {
        "box_offsets": offsets_of(np.bincount(image[rows], minlength=len(image_ids))),
        "boxes_xywh": boxes_xywh,
        "areas": np.where(np.isnan(areas), boxes_xywh[:, 2] * boxes_xywh[:, 3], areas),
        "category_index": category_index[rows].astype(np.int32),
        "annotation_ids": identities[rows],
        "ignore": boxes.column("ignore")[rows],
        "crowd": boxes.column("crowd")[rows],
    }
    return columns, warnings


def _outlined(count: int) -> list[str]:
    return [f"{count} annotations have no `bbox`; theirs is the box around `segmentation`"] if count else []


def _unlisted(listed: np.ndarray, identities: np.ndarray, owners: np.ndarray) -> list[str]:
    if listed.all():
        return []
    first = np.flatnonzero(~listed)[0]
    return [
        f"{np.count_nonzero(~listed)} annotations belong to images that it does not list and are skipped "
        f"(first: annotation {identities[first]} of image {owners[first]})"
    ]


def _repeated_annotations(identities: np.ndarray) -> list[str]:
    values, counts = np.unique(identities, return_counts=True)
    repeated = values[counts > 1]
    if not len(repeated):
        return []
    return [
        f"{len(repeated)} annotation ids occur more than once (first: {repeated[0]}); all of their boxes are "
        "used, but the `lvis` package would confuse them"
    ]


def _repeated_names(names: list[str]) -> list[str]:
    if len(set(names)) == len(names):
        return []
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [
        f"{len(repeated)} images are listed under several ids (first: {repeated[0]}): list every image "
        "once; until then each entry counts as an image of its own"
    ]


def _id_lists(
    images: ImageColumns, key: str, order: np.ndarray, image_ids: np.ndarray, category_ids: np.ndarray
) -> Ragged:
    """Category ids by image, as indices.

    Ids of no category are dropped, but are an error among image-level labels and labelled classes.

    order: the images of the file, sorted as in `image_ids`.
    """
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows, values = place[images.column(f"{key}.rows")], images.column(key)
    index = np.searchsorted(category_ids, values).clip(max=len(category_ids) - 1)
    known = category_ids[index] == values
    if key in ("pos_category_ids", LABELLED) and not known.all():
        first = np.flatnonzero(~known)[0]
        raise UserError(
            f"image id {image_ids[rows[first]]}: category id {values[first]} of its `{key}` is not "
            f"listed in `categories` ({np.count_nonzero(~known)} such)"
        )
    return Ragged.from_rows(rows[known], index[known].astype(np.int32), len(order))


def _judged_lists(
    labelled: Ragged, images: ImageColumns, order: np.ndarray, category_ids: np.ndarray
) -> tuple[Ragged, np.ndarray]:
    """`judged` and `judged_list` of AnnotationTable. An image's own list wins over the file's.

    labelled: indices by image, empty where an image has no list.  order: as in `_id_lists`.
    """
    stated = images.column("labelled")[order]
    number = len(category_ids)
    rows, values = np.divmod(np.unique(labelled.row_of_value * number + labelled.values), number)
    by_image = Ragged.from_rows(rows, values.astype(np.int32), len(order))
    lists, numbers = by_image.select(stated).distinct()
    judged_list = np.full(len(order), -1, np.int32)
    judged_list[stated] = numbers
    if images.labelled_ids is not None:
        whole = np.unique(images.labelled_ids)
        index = np.searchsorted(category_ids, whole).clip(max=len(category_ids) - 1)
        if len(unknown := whole[category_ids[index] != whole]):
            raise UserError(f"category id {unknown[0]} of `{LABELLED}` is not listed in `categories`")
        judged_list[~stated] = len(lists)
        values = np.concatenate((lists.values, index.astype(np.int32)))
        lists = Ragged(values, np.append(lists.offsets, len(values)))
    return lists, judged_list
