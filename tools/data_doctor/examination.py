"""Everything about one data set: its splits, its image-level images, and what they have in common."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from config import Config
from datasets.annotations.categories import Category
from datasets.annotations.discovery import (
    find_detection,
    find_image_level,
    find_split,
    folder_of,
    open_image_level,
    open_source,
)
from datasets.annotations.source import IMAGE_LEVEL, AnnotationSource, RawAnnotations
from tools.data_doctor.annotations import check_annotations
from tools.data_doctor.boxes import check_boxes
from tools.data_doctor.classes import check_classes, check_classes_of_both
from tools.data_doctor.findings import Finding, Severity, warnings_as_findings
from tools.data_doctor.image_level import check_image_level, count_image_level
from tools.data_doctor.images import check_images
from tools.data_doctor.part import Part, part_name
from tools.data_doctor.pixels import check_pixels
from util.errors import UserError


@dataclass(frozen=True)
class Reading:
    """How the data is to be read: by main.py's flags of these names and its config.

    decode: decodes every image.
    val_required: whether a run stops where a data set has no validation split.
    """

    config: Config
    dataset_file: str = "lvis"
    allow_outside: bool = False
    decode: bool = False
    val_required: bool = True


@dataclass
class Examination:
    """One data set and the findings so far. name: '' where there is no other one."""

    data: Path
    reading: Reading
    name: str = ""
    findings: list[Finding] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    labelled: Mapping[int, int] = field(default_factory=dict)

    def run(self) -> None:
        """Both splits, and the image-level images; what several data sets share is left to the caller."""
        train, val = (self._split(split) for split in ("train", "val"))
        if train is not None and val is not None:
            self.findings += check_classes_of_both(val.name, train.raw, val.raw)
        if train is not None and train.raw.categories and self.reading.config.use_imagenet:
            self._image_level(tuple(train.raw.categories))

    @property
    def training(self) -> RawAnnotations | None:
        """The annotations of the training split, where they can be read."""
        return next((part.raw for part in self.parts if part.split == "train"), None)

    def _split(self, split: str) -> Part | None:
        where, before = part_name(self.name, split), len(self.findings)
        if split == "val" and not self.reading.val_required and self._lacks_validation():
            what = "there is no validation split"
            self.findings.append(Finding(Severity.NOTE, where, what))
            return None
        raw = None
        with warnings_as_findings(where, self.findings):
            source = find_detection(self.data, split, self.reading.dataset_file)
            raw = source.check()
        if raw is None:
            return None
        self.findings += check_annotations(where, raw)
        self.findings += check_classes(where, raw, training=split == "train")
        report = None
        with warnings_as_findings(where, self.findings):
            files = source.images(raw.file_names, self._inside)
            files.open_archives()
            report = check_images(where, files, raw.file_names, _pairs(raw.sizes), self.reading.decode)
        if report is not None:
            self.findings += report.findings(self.reading.config.max_damaged_share)
            self.findings += check_pixels(where, report.checks)
        part = Part(self.name, split, raw, report)
        self.findings += check_boxes(where, raw, part.sizes)
        part = self._opened(part, source, before)
        self.parts.append(part)
        return part

    def _lacks_validation(self) -> bool:
        with suppress(UserError):
            return find_split(self.data, "val", self.reading.dataset_file) is None
        return False

    def _opened(self, part: Part, source: AnnotationSource, before: int) -> Part:
        """With the table of training, unless an error explains that there is none."""
        table = None
        errors: list[Finding] = []
        with warnings_as_findings(part.name, errors, warnings=False):
            table, _ = open_source(source, self._inside)
        if all(f.severity < Severity.ERROR for f in self.findings[before:]):
            # The reader may refuse what the checks do not know.
            self.findings += errors
        return Part(part.set_name, part.split, part.raw, part.images, table)

    def _image_level(self, categories: tuple[Category, ...]) -> None:
        """What is wrong with the images that have a label only, and how many each class has."""
        path, where = self.reading.config.imagenet_path, part_name(self.name, IMAGE_LEVEL)
        try:
            find_image_level(self.data, path)
        except UserError as error:
            if path:
                self.findings.append(Finding(Severity.ERROR, where, str(error)))
            else:
                what = "there are no images with a label only: train with use_imagenet=False"
                self.findings.append(Finding(Severity.NOTE, where, what, kind=what))
            return
        counts = report = None
        with warnings_as_findings(where, self.findings):
            annotations, files = open_image_level(self.data, path, allow_outside=self.reading.allow_outside)
            counts = count_image_level(annotations, categories)
            names = [annotations.file_names[i] for i in range(len(annotations))]
            report = check_images(where, files, names, _pairs(annotations.sizes), self.reading.decode)
        if counts is None or report is None:
            return
        self.findings += check_image_level(where, counts, categories)
        self.findings += report.findings(self.reading.config.max_damaged_share)
        self.findings += check_pixels(where, report.checks)
        self.labelled = counts.images_of_category
        self.parts.append(Part(self.name, IMAGE_LEVEL, RawAnnotations.from_table(annotations), report))

    @property
    def _inside(self) -> Path | None:
        return None if self.reading.allow_outside else folder_of(self.data)


def _pairs(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    return ((height, width) for height, width in sizes.tolist())
