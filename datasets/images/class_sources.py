"""Where the images of one class lie: in a folder, a tar of its own, or a folder inside one big tar."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import NamedTuple

from datasets.images.header import Header, inspect, inspect_file
from datasets.images.tar_index import TarIndex, open_tar
from util.errors import UserError
from util.logging import get_logger

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
# Folders that hold a split of the classes, not a class.
_SPLITS = {"train", "val", "valid", "validation", "test"}
_TAR, _ZIP = ".tar", ".zip"


class File(NamedTuple):
    """name: relative to the folder of the classes.  member: path below its folder, or row in its tar."""

    name: str
    member: str | int


@dataclass(frozen=True)
class ClassSource:
    """The images of one class.

    name:          of the class folder, or of the tar without its suffix.
    path:          the folder or tar.
    prefix:        the folder within a big tar, ending in '/'; '' for a folder, and for a class's own tar.
    hidden_prefix: the part of `prefix` that images' names leave out.
    """

    name: str
    path: Path
    prefix: str = ""
    hidden_prefix: str = ""

    def open(self) -> OpenClassSource:
        """Raises UserError for a tar that cannot be read."""
        return OpenClassSource(self, open_tar(self.path) if self.path.is_file() else None)


@dataclass(frozen=True)
class OpenClassSource:
    """A source whose images can be listed and inspected. tar: its index, None for a folder."""

    source: ClassSource
    tar: TarIndex | None

    def files(self) -> list[File]:
        """The images in order of name, as ImageFolder finds them."""
        source, tar = self.source, self.tar
        if tar is None:
            return [File(f"{source.name}/{file}", file) for file in images_below(source.path)]
        members = [(tar.names[row], int(row)) for row in tar.below(source.prefix)]
        members = [(name, row) for name, row in members if is_image(name)]
        if source.prefix:
            return sorted(File(name.removeprefix(source.hidden_prefix), row) for name, row in members)
        own = f"{source.name}/"
        return sorted(File(own + name.removeprefix(own), row) for name, row in members)

    def inspect(self, file: File, decode: bool = False) -> Header:
        """The header of one of its files. Raises DamagedError, and OSError where it cannot be read."""
        if self.tar is None:
            return inspect_file(self.source.path / str(file.member), decode)
        row, tar = int(file.member), self.tar
        return inspect(lambda start, count: tar.part(row, start, count), int(tar.sizes[row]), decode)


def is_image(path: str) -> bool:
    """Whether a file has an image's suffix and is not hidden, as macOS's `._*` are."""
    return _is_visible(path.rsplit("/", 1)[-1], IMAGE_SUFFIXES)


def _is_visible(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")


def images_below(folder: str | Path) -> list[str]:
    """As `files_below`, the images."""
    return files_below(folder, IMAGE_SUFFIXES)


def files_below(folder: str | Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files with one of `suffixes` in a folder at any depth, relative to it, in order of name.

    Hidden ones are left out; links are followed. Raises UserError for a folder that cannot be read.
    """
    try:
        return sorted(_files_below(folder, suffixes, "", frozenset()))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None


def _files_below(
    folder: str | Path, suffixes: tuple[str, ...], prefix: str, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    status = os.stat(folder)
    here = status.st_dev, status.st_ino
    if here in above:  # a link to a folder that contains it
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files_below(entry.path, suffixes, f"{prefix}{entry.name}/", above | {here})
            elif _is_visible(entry.name, suffixes):
                yield prefix + entry.name


def class_root(folder: str | Path) -> Path | None:
    """Where the classes lie in `folder`: in `images/` or `images.tar`, in `train/` where there are only
    splits, or in itself. None where it holds neither folders nor tars; a tar is its own root."""
    folder = Path(folder)
    if folder.is_file():
        return folder if folder.suffix == _TAR else None
    names = set(_class_entries(folder)) if folder.is_dir() else set()
    if "images" in names:
        return class_root(folder / "images")
    if f"images{_TAR}" in names:
        return folder / f"images{_TAR}"
    if "train" in names and names <= _SPLITS:
        return folder / "train"
    return folder if names else None


def find_class_sources(root: str | Path) -> list[ClassSource]:
    """The sources in a `class_root`, in order of name. A folder wins over a tar of its name; such tars, and
    zips, bring a warning.

    Raises UserError for a tar that cannot be read or holds tars.
    """
    root = Path(root)
    if root.is_file():
        return _sources_in_tar(root)
    found: dict[str, ClassSource] = {}
    unused = []
    for entry in _class_entries(root):
        name = entry if (root / entry).is_dir() else entry.removesuffix(_TAR)
        if name in found:
            unused.append(entry)
        else:
            found[name] = ClassSource(name, root / entry)
    _warn(root, "tars are not used: a folder has the same name", unused)
    zips = sorted(p.name for p in root.iterdir() if p.suffix == _ZIP and p.stem not in found)
    _warn(root, "zips are not used: unpack them or convert them to tars", zips)
    return [found[name] for name in sorted(found)]


def _class_entries(folder: Path) -> list[str]:
    """Names of the folders in `folder`, then of the tars, except hidden ones and archivers' leftovers."""
    with os.scandir(folder) as entries:
        visible = [e for e in entries if not e.name.startswith((".", "__MACOSX"))]
        folders = sorted(e.name for e in visible if e.is_dir())
        return folders + sorted(e.name for e in visible if e.name.endswith(_TAR) and e.is_file())


def _warn(root: Path, what: str, names: list[str]) -> None:
    if names:
        get_logger().warning("%s: %d %s (first: %s)", root, len(names), what, names[0])


def _sources_in_tar(path: Path) -> list[ClassSource]:
    """The class folders of one big tar: the outermost ones that not all images share."""
    index = open_tar(path)
    folders: Counter[str] = Counter()
    tars = []
    for row in range(len(index)):
        name = index.names[row]
        if is_image(name):
            folders[name.rpartition("/")[0]] += 1
        elif name.endswith(_TAR):
            tars.append(name)
    if tars and not folders:
        raise UserError(
            f"{path}: contains {len(tars)} tars (first: {tars[0]}); unpack it once: tar -xf {path.name}"
        )
    loose = folders.pop("", 0)
    shared = commonpath(folders) if folders else ""
    prefix = f"{shared}/" if shared else ""
    beside = folders[shared]
    inner = {folder.removeprefix(prefix).split("/")[0] for folder in folders if folder != shared}
    if beside and len(inner) > 1 and beside < folders.total() - beside:
        loose += folders.pop(shared)  # images beside the classes
    elif beside:  # a single class
        prefix = prefix.removesuffix(f"{shared.rpartition('/')[2]}/")
    if loose:
        get_logger().warning("%s: %d images outside any class folder are ignored", path, loose)
    names = sorted({folder.removeprefix(prefix).split("/")[0] for folder in folders})
    # What precedes the class belongs to the name, except for the tar's own name.
    hidden = prefix if prefix == f"{path.stem}/" else ""
    return [ClassSource(name, path, f"{prefix}{name}/", hidden) for name in names]
