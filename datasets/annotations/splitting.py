"""Data with one split only becomes training and validation data."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from datasets.annotations.frequency import recounted
from datasets.annotations.split_file import SPLIT_FILE, Split, SplitFile
from datasets.annotations.stratify import TRAIN, UNDECIDED, VAL, stratify
from datasets.annotations.table import AnnotationTable
from datasets.columns import Ragged, offsets_of
from datasets.images.copies import copies_among
from datasets.images.reader import ImageFolder
from util.errors import UserError
from util.logging import get_logger

# Roboflow exports several augmented versions of an image as NAME_jpg.rf.HASH.jpg: they are one image.
_VERSION = re.compile(r"\.rf\.[0-9A-Za-z]+$")


def split_table(
    table: AnnotationTable,
    share: float,
    seed: int,
    known: Split | None = None,
    copies: Mapping[str, str] | None = None,
) -> tuple[AnnotationTable, AnnotationTable]:
    """The training and the validation part of a table, with the same share of every class.

    share: of the images that validation gets.
    known: an earlier split: its images stay where they are, and only those that it lacks are divided.
    copies: name -> another image, which it stays with.
    The same images are divided alike, in whatever order a file lists them. Roboflow's versions of one image
    stay together too. `image_count` of the categories is that of the training part.
    Raises UserError where a part would be empty.
    """
    names = [table.file_names[i] for i in range(len(table))]
    _check_share(table.name, len(names), share)
    keys = [_one_image(copies.get(name, name) if copies else name) for name in names]
    units = sorted(set(keys), key=lambda key: _draw(seed, key))
    number = {key: unit for unit, key in enumerate(units)}
    unit_of_image = np.array([number[key] for key in keys], dtype=np.int64)
    val = stratify(
        classes_of_units(table, unit_of_image, len(units)),
        len(table.categories) + 1,
        np.bincount(unit_of_image, minlength=len(units)),
        share,
        _decided(known, names, unit_of_image, len(units)),
    )[unit_of_image]
    if known is not None:
        # Copies of one image may have been told apart before.
        for is_val, members in ((False, set(known.train)), (True, set(known.val))):
            val[[name in members for name in names]] = is_val
    if val.all() or not val.any():
        part = "training" if val.all() else "validation"
        raise UserError(
            f"{table.name}: val_share={share:g} leaves no image for {part}: all are copies of one"
        )
    train_part = recounted(table.select(~val))
    val_part = replace(
        table.select(val),
        name=f"{table.name} (validation part)",
        categories=train_part.categories,
        warnings=(),
    )
    return train_part, val_part


@dataclass(frozen=True)
class Divided:
    """split: of the two tables, for the file."""

    train: AnnotationTable
    val: AnnotationTable
    split: Split


def divide(key: str, table: AnnotationTable, images: ImageFolder, plan: SplitFile) -> Divided:
    """The training and the validation part of a set.

    key: of the set in the plan, which has share and seed, and earlier splits.
    images: of the set, where copies are looked for among those that are new.
    Raises UserError as `split_table` does.
    """
    known = plan.sets.get(key)
    names = {table.file_names[i] for i in range(len(table))}
    # Those of an earlier split stay where they are, copies or not.
    new = names.difference(known.train, known.val) if known else names
    copies = copies_among(images, names) if new else {}
    train, val = split_table(table, plan.val_share, plan.seed, known, copies)
    log = get_logger()
    log.info(
        "%s: no validation split: %d of %d images are for validation (val_share=%g)",
        table.name, len(val), len(table), plan.val_share,
    )  # fmt: skip
    if copies:
        log.info("%s: %d images are copies of others and stay with them", table.name, len(copies))
    split = Split.of(train, val)
    if known is None:
        return Divided(train, val, split)
    gone = {*known.train, *known.val} - names
    if new or gone:
        log.warning(
            "%s: since %s was written %d images were added, %d of them for validation, and %d are gone; "
            "the others stay where they were",
            table.name, SPLIT_FILE, len(new), len(new & set(split.val)), len(gone),
        )  # fmt: skip
    return Divided(train, val, known.extended(split))


def _check_share(name: str, count: int, share: float) -> None:
    for_val = round(share * count)
    if 0 < for_val < count:
        return
    if count < 2:
        raise UserError(
            f"{name}: val_share={share:g} needs two images or more to split, and there is {count or 'none'}"
        )
    part, least = ("validation", math.ceil(100 / count) / 100) if not for_val else ("training", 1 - 1 / count)
    raise UserError(
        f"{name}: val_share={share:g} of {count} images leaves none for {part}: try val_share={least:.2g}"
    )


def _one_image(name: str) -> str:
    """The name without what tells versions of one image apart."""
    path = PurePosixPath(name)
    return str(path.with_name(_VERSION.sub("", path.stem))) if _VERSION.search(path.stem) else name


def _draw(seed: int, key: str) -> bytes:
    """A random order of names that depends on nothing else."""
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()


def classes_of_units(table: AnnotationTable, unit_of_image: np.ndarray, count: int) -> Ragged:
    """The classes of each unit, numbered by name; units without boxes have a class of their own, the last."""
    by_name = sorted(range(len(table.categories)), key=lambda k: table.categories[k].name)
    rank = np.empty(len(by_name), np.int64)
    rank[by_name] = np.arange(len(by_name))
    classes = len(by_name) + 1
    pairs = unit_of_image[table.image_index] * classes + rank[table.category_index]
    empty = np.bincount(unit_of_image[table.image_index], minlength=count) == 0
    pairs = np.unique(np.concatenate([pairs, np.flatnonzero(empty) * classes + classes - 1]))
    return Ragged(pairs % classes, offsets_of(np.bincount(pairs // classes, minlength=count)))


def _decided(known: Split | None, names: Sequence[str], unit_of_image: np.ndarray, count: int) -> np.ndarray:
    """(count,) TRAIN, VAL or UNDECIDED. A unit that has been validated on stays there."""
    decided = np.full(count, UNDECIDED)
    if known is not None:
        for part, members in ((TRAIN, known.train), (VAL, known.val)):
            there = set(members)
            decided[unit_of_image[[name in there for name in names]]] = part
    return decided
