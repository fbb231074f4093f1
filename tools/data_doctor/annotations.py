"""Checks of the entries of annotation files: ids, and what they refer to."""

from collections.abc import Iterator

import numpy as np

from datasets.annotations.source import RawAnnotations
from tools.data_doctor.findings import Finding, Severity, found, repeated

NOTE, WARNING, ERROR = Severity


def check_annotations(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    """Everything about one split, 'train' or 'val'."""
    yield from found(
        ERROR, split, "{n} entries are invalid", raw.faults,
        "correct them as each line says: docs/data.md has the fields and their types",
    )  # fmt: skip
    yield from _check_images(split, raw)
    yield from _check_entries(split, raw)


def _check_images(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    if not len(raw.file_names):
        yield Finding(ERROR, split, "no images are listed", "is it the right file?")
    yield from found(ERROR, split, "{n} image ids are listed more than once",
                     repeated(raw.image_ids.tolist()), "give every image a unique id")  # fmt: skip
    yield from found(
        WARNING, split, "{n} images are listed more than once, under different ids",
        repeated(raw.file_names), "merge their annotations: each listing lacks the boxes of the others",
    )  # fmt: skip
    empty = len(np.setdiff1d(raw.image_ids, raw.box_image_ids))
    # Where there are no boxes at all, another finding says so.
    if empty and len(raw.annotation_ids):
        many = empty > len(raw.file_names) / 2
        yield Finding(
            WARNING if many else NOTE, split, f"{empty:,} of {len(raw.file_names):,} images have no box",
            "are their annotations missing? Images without boxes teach that nothing is there" if many else "",
        )  # fmt: skip


def _check_entries(split: str, raw: RawAnnotations) -> Iterator[Finding]:
    ids = raw.annotation_ids
    yield from found(WARNING, split, "{n} annotation ids are listed more than once", repeated(ids.tolist()),
                     "harmless here, but other tools refuse such files: renumber them")  # fmt: skip
    if (ids == 0).any():
        what = (
            "an annotation has the id 0: other tools count what matches it as missed, this project does not"
        )
        yield Finding(NOTE, split, what)
    known = np.isin(raw.box_category_ids, [c.id for c in raw.categories])
    yield from found(ERROR, split, "{n} annotations are of a class that is not listed",
                     _named(ids, ~known), "add the class to `categories`, or remove them")  # fmt: skip
    listed = np.isin(raw.box_image_ids, raw.image_ids)
    yield from found(WARNING, split, "{n} annotations belong to images that are not listed",
                     _named(ids, ~listed), "add the images, or remove them")  # fmt: skip


def _named(ids: np.ndarray, chosen: np.ndarray) -> list[str]:
    return [f"annotation {i}" for i in ids[chosen].tolist()]
