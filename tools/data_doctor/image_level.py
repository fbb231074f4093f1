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
    """images_of_category: detection category id -> image-level images.  unused: for each unused class, why.
    num_unlabelled: images without a label."""

    images_of_category: Counter
    unused: list[str]
    num_unlabelled: int


def count_image_level(annotations: AnnotationTable, categories: tuple[Category, ...]) -> ImageLevelCounts:
    """How many image-level images each detection class has."""
    matches = match_categories(annotations.categories, categories)
    labelled = annotations.positives.lengths > 0
    first = annotations.positives.values[annotations.positives.offsets[:-1][labelled]]
    images_of_category: Counter[int] = Counter()
    unused = []
    for index, count in zip(*np.unique(first, return_counts=True), strict=True):
        category = annotations.categories[index]
        target = matches.target_of.get(category.id)
        if target is None:
            unused.append(f"{why_unused(category, matches, categories)}: {count} images")
        else:
            images_of_category[target] += int(count)
    return ImageLevelCounts(images_of_category, unused, int(np.count_nonzero(~labelled)))


def check_image_level(
    where: str, counts: ImageLevelCounts, categories: tuple[Category, ...]
) -> Iterator[Finding]:
    """What is unused, and how many classes have images. where: the name of this part of the data."""
    yield from found(Severity.WARNING, where, "{n} classes match no detection class", counts.unused,
                     "rename them to the detection class, or add their name to its synonyms")  # fmt: skip
    if counts.num_unlabelled:
        yield Finding(Severity.WARNING, where, f"{counts.num_unlabelled} images have no label",
                      "they are skipped: give them `pos_category_ids`")  # fmt: skip
    if not counts.images_of_category:
        yield Finding(Severity.ERROR, where, "no image has a class of the detection data",
                      "compare the names above, or train with use_imagenet=False")  # fmt: skip
    images = counts.images_of_category
    rare = [c for c in categories if c.frequency == "r"]
    helped = sum(images[c.id] > 0 for c in rare)
    yield Finding(
        Severity.NOTE,
        where,
        f"{images.total():,} images of {len(images)} of {len(categories)} classes"
        + (f", {helped} of {len(rare)} rare ones" if rare else ""),
    )
