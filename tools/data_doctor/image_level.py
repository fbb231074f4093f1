"""Checks of the images that have a label only."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.annotations.categories import Category
from datasets.annotations.category_matching import match_categories
from datasets.annotations.table import AnnotationTable
from datasets.image_level import why_unused
from tools.data_doctor.findings import Finding, Severity, found


@dataclass(frozen=True)
class ImageLevelCounts:
    """images: detection category id -> image-level images.  unused: why a class is not used, by class."""

    images: Counter
    unused: list[str]
    unlabelled: int


def count_image_level(annotations: AnnotationTable, categories: tuple[Category, ...]) -> ImageLevelCounts:
    """What the image-level images teach of the detection classes."""
    matches = match_categories(annotations.categories, categories)
    labelled = annotations.positives.lengths > 0
    first = annotations.positives.values[annotations.positives.offsets[:-1][labelled]]
    images, unused = Counter(), []
    for index, count in zip(*np.unique(first, return_counts=True), strict=True):
        category = annotations.categories[index]
        target = matches.target_of.get(category.id)
        if target is None:
            unused.append(f"{why_unused(category, matches, categories)}: {count} images")
        else:
            images[target] += int(count)
    return ImageLevelCounts(images, unused, int(np.count_nonzero(~labelled)))


def check_image_level(counts: ImageLevelCounts, categories: tuple[Category, ...]) -> Iterator[Finding]:
    """What is not used, and what is there for whom."""
    where = "image-level"
    yield from found(Severity.WARNING, where, "{n} classes match no detection class", counts.unused,
                     "name them as the detection class is named, or give that one a synonym")  # fmt: skip
    if counts.unlabelled:
        yield Finding(Severity.WARNING, where, f"{counts.unlabelled} images have no label",
                      "they are left out: give them `pos_category_ids`")  # fmt: skip
    if not counts.images:
        yield Finding(Severity.ERROR, where, "no image has a class of the detection data",
                      "see the names above; or train with use_imagenet=False")  # fmt: skip
    rare = [c for c in categories if c.frequency == "r"]
    helped = sum(counts.images[c.id] > 0 for c in rare)
    yield Finding(
        Severity.NOTE,
        where,
        f"{counts.images.total()} images of {len(counts.images)} of {len(categories)} classes"
        + (f", {helped} of {len(rare)} rare ones" if rare else ""),
    )
