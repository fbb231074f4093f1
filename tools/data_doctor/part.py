"""A part of the data: one split of one data set, or its image-level images."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.annotations.source import IMAGE_LEVEL, RawAnnotations
from datasets.annotations.table import AnnotationTable
from tools.data_doctor.images import ImageReport


@dataclass(frozen=True)
class Part:
    """set_name: '' where there is one data set only.  split: 'train', 'val' or IMAGE_LEVEL.

    images: None where they could not be looked for.
    table:  what training reads; None where it stops.
    """

    set_name: str
    split: str
    raw: RawAnnotations
    images: ImageReport | None = None
    table: AnnotationTable | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return part_name(self.set_name, self.split)

    @property
    def is_validation(self) -> bool:
        """Whether it is evaluated on."""
        return self.split == "val"

    @property
    def is_image_level(self) -> bool:
        """Whether its images have labels only."""
        return self.split == IMAGE_LEVEL

    @cached_property
    def sizes(self) -> np.ndarray:
        """(I, 2) height and width of the images as they are stated, else as they are; 0 if unknown."""
        if self.images is None or self.raw.sizes.all():
            return self.raw.sizes
        measured = {check.name: check.size for check in self.images.checks}
        stated = map(tuple, self.raw.sizes.tolist())
        named = zip(self.raw.file_names, stated, strict=True)
        sizes = [size if all(size) else measured.get(name, size) for name, size in named]
        return np.array(sizes, np.float64).reshape(-1, 2)

    def labels(self, file_name: str) -> Mapping[str, np.ndarray]:
        """Class -> (n, 4) boxes XYWH in pixels of an image."""
        order, ids = self._by_image
        labels = defaultdict(list)
        for image_id in self._ids_of_name.get(file_name, ()):
            first, end = np.searchsorted(ids, [image_id, image_id + 1])
            for row in order[first:end].tolist():
                identity = int(self.raw.box_category_ids[row])
                labels[self._class_names.get(identity, f"class {identity}")].append(self.raw.boxes_xywh[row])
        return {name: np.array(boxes, np.float64) for name, boxes in labels.items()}

    def judged(self, file_name: str) -> set[str]:
        """The classes that were looked for in an image: all of them, unless the annotations say otherwise."""
        table = self.table
        if table is None or not table.federated:
            return set(self._class_names.values())
        found = set(self.labels(file_name))
        for row in self._table_rows.get(file_name, ()):
            listed = [table.negatives[row]]
            if table.judged_list[row] >= 0:
                listed.append(table.judged[int(table.judged_list[row])])
            found |= {table.categories[i].name for i in np.concatenate(listed).tolist()}
        return found

    @cached_property
    def _class_names(self) -> dict[int, str]:
        return {c.id: c.name for c in self.raw.categories}

    @cached_property
    def _ids_of_name(self) -> dict[str, list[int]]:
        return _grouped(self.raw.file_names, self.raw.image_ids.tolist())

    @cached_property
    def _table_rows(self) -> dict[str, list[int]]:
        names = self.table.file_names if self.table is not None else ()
        return _grouped([names[i] for i in range(len(names))], range(len(names)))

    @cached_property
    def _by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the boxes in order of their images' ids, and these ids."""
        order = np.argsort(self.raw.box_image_ids, kind="stable")
        return order, self.raw.box_image_ids[order]


def part_name(set_name: str, split: str) -> str:
    """What a part is called in findings."""
    return f"{set_name}: {split}" if set_name else split


def _grouped(names: Iterable[str], values: Iterable[int]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        groups[name].append(value)
    return groups
