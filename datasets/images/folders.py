"""The images of several data sets as one, by names that begin with the set's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from datasets.images.preprocess import EncodedImage
from datasets.images.reader import Found


class Images(Protocol):
    """Where the images of a table are read from; see `ImageFolder`, which says what each method does."""

    def find(self, name: str) -> Found | None: ...
    def refusal(self, name: str) -> str: ...
    def open(self, name: str, size: tuple[int, int] = (0, 0)) -> EncodedImage: ...
    def read(self, name: str, size: tuple[int, int] = (0, 0)) -> np.ndarray: ...
    def nearest(self, name: str) -> str: ...
    def no_such(self, name: str) -> str: ...
    @property
    def missing(self) -> Mapping[str, str]: ...
    def open_archives(self, images: Iterable[str] | None = None) -> None: ...


class ImageFolders:
    """The image `a/b.jpg` of the set `cats` is `cats/a/b.jpg`.

    folders: by the name of the set, which has no `/`.
    """

    def __init__(self, folders: Mapping[str, Images]) -> None:
        self.folders = folders

    def _place(self, name: str) -> tuple[Images, str]:
        part, _, own = name.partition("/")
        return self.folders[part], own

    def find(self, name: str) -> Found | None:
        images, own = self._place(name)
        return images.find(own)

    def refusal(self, name: str) -> str:
        images, own = self._place(name)
        return images.refusal(own)

    def open(self, name: str, size: tuple[int, int] = (0, 0)) -> EncodedImage:
        images, own = self._place(name)
        return images.open(own, size)

    def read(self, name: str, size: tuple[int, int] = (0, 0)) -> np.ndarray:
        images, own = self._place(name)
        return images.read(own, size)

    def nearest(self, name: str) -> str:
        images, own = self._place(name)
        return images.nearest(own)

    def no_such(self, name: str) -> str:
        images, own = self._place(name)
        return images.no_such(own)

    @property
    def missing(self) -> Mapping[str, str]:
        return {
            f"{part}/{name}": there
            for part, images in self.folders.items()
            for name, there in images.missing.items()
        }

    def open_archives(self, images: Iterable[str] | None = None) -> None:
        names = None if images is None else list(images)
        for part, folder in self.folders.items():
            own = None if names is None else [n.partition("/")[2] for n in names if n.startswith(f"{part}/")]
            folder.open_archives(own)
