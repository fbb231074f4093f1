"""Checks of what the annotation files say."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from datasets.annotations.categories import plain_name
from tools.data_doctor.findings import Finding, Severity, found
from tools.data_doctor.split import RawSplit

NOTE, WARNING, ERROR = Severity
# Annotation tools round; a box may reach so many pixels beyond its image without a word.
_ROUNDING = 1.0


def check_annotations(split: RawSplit) -> Iterator[Finding]:
    """Everything about one split."""
    yield from found(
        ERROR, split.name, "{n} entries are not as they should be", split.malformed,
        "ids must be integers (not texts), names texts, a bbox four numbers; "
        "YOLO lines: class x y width height",
    )  # fmt: skip
    yield from _check_images(split)
    yield from _check_classes(split)
    yield from _check_boxes(split)


def check_classes_of_both(train: RawSplit, val: RawSplit) -> Iterator[Finding]:
    """Classes that only one split has."""
    names = [{c.get("name") for c in split.categories} for split in (train, val)]
    yield from found(
        ERROR, "val", "{n} classes are not among those of training", sorted(map(str, names[1] - names[0])),
        "give both files the same `categories`",
    )  # fmt: skip
    unseen = {c["id"]: str(c.get("name")) for c in val.categories if "id" in c}
    shown = set(val.classes)
    yield from found(
        NOTE, "val", "{n} classes have no box: their AP is not defined and does not count",
        [name for identity, name in unseen.items() if identity not in shown], "",
    )  # fmt: skip


def _check_images(split: RawSplit) -> Iterator[Finding]:
    if not split.file_names:
        yield Finding(ERROR, split.name, "no images are listed", "is it the right file?")
    yield from found(
        ERROR, split.name, "{n} image ids are listed more than once", _repeated(split.image_ids),
        "give every image an id of its own",
    )  # fmt: skip
    yield from found(
        WARNING, split.name, "{n} images are listed more than once, under different ids",
        _repeated(split.file_names), "merge their annotations: each listing lacks the boxes of the others",
    )  # fmt: skip
    empty = len(set(split.image_ids) - set(split.owners))
    if empty and split.file_names:
        yield Finding(NOTE, split.name, f"{empty} of {len(split.file_names)} images have no box")


def _check_classes(split: RawSplit) -> Iterator[Finding]:
    if not split.categories:
        yield Finding(ERROR, split.name, "no classes are listed", "`categories` must name them")
        return
    names = [str(c.get("name")) for c in split.categories]
    ids = [c.get("id") for c in split.categories]
    wrong = [n for n, i in zip(names, ids, strict=True) if not isinstance(i, int) or isinstance(i, bool)]
    yield from found(ERROR, split.name, "{n} classes have an id that is not an integer", wrong,
                     "write ids as integers, here and in the annotations")  # fmt: skip
    yield from found(ERROR, split.name, "{n} class ids are listed more than once", _repeated(ids),
                     "give every class an id of its own")  # fmt: skip
    yield from found(ERROR, split.name, "{n} class names are listed more than once", _repeated(names),
                     "names tell classes apart: rename or merge them")  # fmt: skip
    spelt = defaultdict(set)
    for name in names:
        spelt[plain_name(name)].add(name)
    alike = [" and ".join(map(repr, sorted(n))) for n in spelt.values() if len(n) > 1]
    yield from found(WARNING, split.name, "{n} class names differ only in case, underscores or spaces", alike,
                     "merge them if they mean the same; folders cannot tell them apart")  # fmt: skip
    if not any(c.get("frequency") for c in split.categories):
        yield Finding(NOTE, split.name, "classes have no `frequency`: APr, APc and APf are not reported",
                      "tools/category_counts.py TRAIN.json --update TRAIN.json VAL.json adds it")  # fmt: skip
    if split.name == "train":
        shown = set(split.classes)
        without = [n for n, i in zip(names, ids, strict=True) if i not in shown]
        yield from found(WARNING, split.name, "{n} classes have no box", without,
                         "annotate some; until then only labelled images teach them")  # fmt: skip


def _check_boxes(split: RawSplit) -> Iterator[Finding]:
    identities = np.array(split.annotation_ids)
    yield from found(WARNING, split.name, "{n} annotation ids are listed more than once",
                     _repeated(split.annotation_ids),
                     "harmless here; other tools refuse such files: number them anew")  # fmt: skip
    classes, owners = np.array(split.classes), np.array(split.owners)
    known = np.isin(classes, [c["id"] for c in split.categories if isinstance(c.get("id"), int)])
    yield from found(ERROR, split.name, "{n} annotations are of a class that is not listed",
                     _named(identities, ~known), "add the class to `categories`, or remove them")  # fmt: skip
    listed = np.isin(owners, np.array(split.image_ids))
    yield from found(WARNING, split.name, "{n} annotations belong to images that are not listed",
                     _named(identities, ~listed), "add the images, or remove them")  # fmt: skip
    if not len(identities):
        yield Finding(ERROR, split.name, "there are no boxes", "is it the right file?")
        return
    sizes = dict(zip(split.image_ids, split.sizes, strict=True))
    heights, widths = np.array([sizes.get(owner, (0, 0)) for owner in owners.tolist()], float).T
    width = np.where(widths > 0, widths, np.inf)
    height = np.where(heights > 0, heights, np.inf)
    x, y, w, h = split.boxes.T
    empty = (w <= 0) | (h <= 0)
    beyond = (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)
    outside = (x < -_ROUNDING) | (y < -_ROUNDING)
    outside |= (x + w > width + _ROUNDING) | (y + h > height + _ROUNDING)
    yield from found(WARNING, split.name, "{n} boxes have no width or height", _named(identities, empty),
                     "they are left out in training: remove them or draw them again")  # fmt: skip
    yield from found(WARNING, split.name, "{n} boxes lie outside their image",
                     _named(identities, beyond & ~empty),
                     "left out in training: are they of another image, or x1 y1 x2 y2?")  # fmt: skip
    yield from found(WARNING, split.name, "{n} boxes reach beyond their image",
                     _named(identities, outside & ~beyond & ~empty),
                     "clipped in training; are many: x1 y1 x2 y2, or images resized?")  # fmt: skip


def _named(identities: np.ndarray, chosen: np.ndarray) -> list[str]:
    return [f"annotation {i}" for i in identities[chosen].tolist()]


def _repeated(values: Sequence) -> list[str]:
    """The values that occur several times."""
    return [str(value) for value, count in Counter(values).items() if count > 1]
