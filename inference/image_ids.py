"""The ids that an annotation file gives to images and classes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets.annotations.json_reader import read_annotations


class ImageIds:
    """Ids by file name and by class name.

    image_ids: by file name, which may have folders.  category_ids: by class name.
    """

    def __init__(self, image_ids: Mapping[str, int], category_ids: Mapping[str, int]) -> None:
        self.category_ids = category_ids
        self._by_name = dict(image_ids)
        self._by_file: dict[str, int | None] = {}
        for name, number in image_ids.items():
            file = name.rsplit("/", 1)[-1]
            # None: files of this name lie in several folders.
            self._by_file[file] = None if file in self._by_file else number

    @classmethod
    def read(cls, path: str | Path) -> ImageIds:
        """Of an LVIS or COCO file. Raises UserError for a file that is missing or of another format."""
        table = read_annotations(path)
        names = (table.file_names[row] for row in range(len(table)))
        images = dict(zip(names, table.image_ids.tolist(), strict=True))
        return cls(images, {category.name: category.id for category in table.categories})

    def find(self, path: str) -> int | None:
        """The id of the image at `path`: that of the longest file name that its end equals, else that of the
        only image with its name in whatever folder; None where there is none."""
        parts = Path(path).parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        found = next((self._by_name[end] for end in ends if end in self._by_name), None)
        return self._by_file.get(parts[-1]) if found is None else found
