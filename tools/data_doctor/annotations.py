"""Checks of what the annotation files say."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from datasets.annotations.categories import plain_name
from datasets.annotations.source import RawAnnotations
from tools.data_doctor.findings import Finding, Severity, found

NOTE, WARNING, ERROR = Severity
# Annotation tools round; a box may reach so many pixels beyond its image without a word.
_ROUNDING = 1.0


def check_annotations(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    """Everything about one split, 'train' or 'val'."""
    yield from found(
        ERROR, split, "{n} entries are invalid", raw.faults,
        "correct them as each line says: docs/data.md has the fields and their types",
    )  # fmt: skip
    yield from _check_images(split, raw)
    yield from _check_classes(split, raw)
    yield from _check_boxes(split, raw)


def check_classes_of_both(train: RawAnnotations, val: RawAnnotations) -> Iterator[Finding]:
    """Classes that only one split has."""
    names = [{c.name for c in raw.categories} for raw in (train, val)]
    yield from found(ERROR, "val", "{n} classes are not among those of training",
                     sorted(names[1] - names[0]), "give both files the same `categories`")  # fmt: skip
    shown = set(val.box_category_ids.tolist())
    yield from found(NOTE, "val", "{n} classes have no box: their AP is undefined and does not count",
                     [c.name for c in val.categories if c.id not in shown], "")  # fmt: skip


def _check_images(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    if not len(raw.file_names):
        yield Finding(ERROR, split, "no images are listed", "is it the right file?")
    yield from found(ERROR, split, "{n} image ids are listed more than once",
                     _repeated(raw.image_ids.tolist()), "give every image a unique id")  # fmt: skip
    yield from found(
        WARNING, split, "{n} images are listed more than once, under different ids",
        _repeated(raw.file_names), "merge their annotations: each listing lacks the boxes of the others",
    )  # fmt: skip
    empty = len(np.setdiff1d(raw.image_ids, raw.box_image_ids))
    if empty and len(raw.file_names):
        yield Finding(NOTE, split, f"{empty} of {len(raw.file_names)} images have no box")


def _check_classes(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    if not raw.categories:
        yield Finding(ERROR, split, "no classes are listed", "`categories` must name them")
        return
    names = [c.name for c in raw.categories]
    yield from found(ERROR, split, "{n} class ids are listed more than once",
                     _repeated([c.id for c in raw.categories]), "give every class a unique id")  # fmt: skip
    yield from found(ERROR, split, "{n} class names are listed more than once", _repeated(names),
                     "names identify classes: rename or merge them")  # fmt: skip
    spelt = defaultdict(set)
    for name in names:
        spelt[plain_name(name)].add(name)
    alike = [" and ".join(map(repr, sorted(n))) for n in spelt.values() if len(n) > 1]
    yield from found(WARNING, split, "{n} class names differ only in case, underscores or spaces", alike,
                     "merge them if they mean the same; folders cannot tell them apart")  # fmt: skip
    if not any(c.frequency for c in raw.categories):
        yield Finding(NOTE, split, "classes have no `frequency`: APr, APc and APf are not reported",
                      "tools/category_counts.py TRAIN.json --update TRAIN.json VAL.json adds it")  # fmt: skip
    if split == "train":
        shown = set(raw.box_category_ids.tolist())
        without = [c.name for c in raw.categories if c.id not in shown]
        yield from found(WARNING, split, "{n} classes have no box", without,
                         "annotate some; until then only labelled images teach them")  # fmt: skip


def _check_boxes(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    ids = raw.annotation_ids
    yield from found(WARNING, split, "{n} annotation ids are listed more than once", _repeated(ids.tolist()),
                     "harmless here, but other tools refuse such files: renumber them")  # fmt: skip
    known = np.isin(raw.box_category_ids, [c.id for c in raw.categories])
    yield from found(ERROR, split, "{n} annotations are of a class that is not listed",
                     _named(ids, ~known), "add the class to `categories`, or remove them")  # fmt: skip
    listed = np.isin(raw.box_image_ids, raw.image_ids)
    yield from found(WARNING, split, "{n} annotations belong to images that are not listed",
                     _named(ids, ~listed), "add the images, or remove them")  # fmt: skip
    if not len(ids):
        yield Finding(ERROR, split, "there are no boxes", "is it the right file?")
        return
    heights, widths = _sizes_of_boxes(raw).T
    width = np.where(widths > 0, widths, np.inf)
    height = np.where(heights > 0, heights, np.inf)
    x, y, w, h = raw.boxes_xywh.T
    finite = np.isfinite(raw.boxes_xywh).all(1)
    empty = finite & ((w <= 0) | (h <= 0))
    beyond = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
    outside = (x < -_ROUNDING) | (y < -_ROUNDING)
    outside |= (x + w > width + _ROUNDING) | (y + h > height + _ROUNDING)
    sized = finite & ~empty
    yield from found(ERROR, split, "{n} boxes contain NaN or infinity", _named(ids, ~finite),
                     "training skips them and evaluation cannot match them: remove them")  # fmt: skip
    yield from found(WARNING, split, "{n} boxes have no width or height", _named(ids, empty),
                     "training skips them: remove them or draw them again")  # fmt: skip
    yield from found(WARNING, split, "{n} boxes lie outside their image", _named(ids, beyond & sized),
                     "training skips them: do they belong to another image, or are they "
                     "x1 y1 x2 y2?")  # fmt: skip
    yield from found(WARNING, split, "{n} boxes reach beyond their image",
                     _named(ids, outside & ~beyond & sized),
                     "training clips them; if there are many: are they x1 y1 x2 y2, or were the images "
                     "resized?")  # fmt: skip


def _sizes_of_boxes(raw: RawAnnotations) -> np.ndarray:
    """(N, 2) height and width of each box's image, 0 if unknown."""
    if not len(raw.image_ids):
        return np.zeros((len(raw.annotation_ids), 2))
    order = np.argsort(raw.image_ids, kind="stable")
    row = order[np.searchsorted(raw.image_ids, raw.box_image_ids, sorter=order).clip(max=len(order) - 1)]
    return np.where((raw.image_ids[row] == raw.box_image_ids)[:, None], raw.sizes[row], 0)


def _named(ids: np.ndarray, chosen: np.ndarray) -> list[str]:
    return [f"annotation {i}" for i in ids[chosen].tolist()]


def _repeated(values: Sequence) -> list[str]:
    """The values that occur several times."""
    return [str(value) for value, count in Counter(values).items() if count > 1]
