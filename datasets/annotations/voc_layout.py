"""Where a Pascal VOC folder keeps the XML files and images of its splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datasets.annotations.source import SPLIT_NAMES, split_of
from datasets.annotations.voc_xml import read_voc
from datasets.images.class_sources import files_below, images_below, is_image
from util.errors import UserError
from util.text_files import read_lines

# Folders of XML files, and of images, beside one another.
_XML_FOLDERS = ("Annotations", "annotations", "labels", "xml", "xmls")
_IMAGE_FOLDERS = ("JPEGImages", "images", "data", "img")
# Lists of ImageSets/Main that are of all images.
_WHOLE_LISTS = ("trainval", "default")


class VocMember(NamedTuple):
    """An image of a split. stem: of its file's name, below the folder of images.  file: its XML file, None
    for an image that only a list names.  listed_in: list and line, for messages."""

    stem: str
    file: Path | None
    listed_in: str = ""


@dataclass(frozen=True)
class VocPart:
    """A split. home: the folder that image names are relative to.  members: in order of their stems.
    image_folders: below `home`, where images are looked for, most likely first; '.' for `home` itself."""

    home: Path
    members: Sequence[VocMember]
    image_folders: Sequence[str]

    def image_of(self, member: VocMember, filename: str) -> str | None:
        """The image's name below `home`: the one that is called as the XML file is, else the stated one,
        whether it exists or not. None where there is neither a file of that name nor a stated one."""
        stated = PurePosixPath(filename.replace("\\", "/")).name
        for stem in (member.stem, PurePosixPath(stated).stem):
            if name := self.images.get(stem):
                return name
        # What an archive holds is not listed here.
        return (
            f"{next(iter(self.image_folders), 'JPEGImages')}/{stated}".removeprefix("./") if stated else None
        )

    @cached_property
    def images(self) -> dict[str, str]:
        """Path of an image below its folder, without suffix -> its name below `home`."""
        found: dict[str, str] = {}
        for folder in self.image_folders:
            if not (self.home / folder).is_dir():
                continue
            names = _direct_images(self.home) if folder == "." else images_below(self.home / folder)
            for name in names:
                path = PurePosixPath(folder) / name
                found.setdefault(str(PurePosixPath(name).with_suffix("")), str(path))
        return found


def find_voc(path: Path) -> Mapping[str, VocPart]:
    """'train', 'val' -> the part of a VOC folder, of the path or the only one in it or in its `VOCdevkit`.

    Empty where there is none. Raises UserError for a list that cannot be read.
    """
    if not path.is_dir():
        return {}
    if found := _parts(path):
        return found
    inner = sorted([*path.glob("VOC2*"), *path.glob("VOCdevkit/VOC2*")])
    return _parts(inner[0]) if len(inner) == 1 else {}


def _parts(home: Path) -> Mapping[str, VocPart]:
    """By the first arrangement that the folder has."""
    for parts in _arrangements(home):
        files = [m.file for part in parts.values() for m in part.members if m.file is not None]
        if files and _is_voc(files[0]):
            return parts
    return {}


def _is_voc(file: Path) -> bool:
    """Whether an XML file is one of VOC's. One that is damaged may be."""
    try:
        read_voc(file)
    except UserError as error:
        return "is no VOC annotation" not in str(error)
    return True


def _arrangements(home: Path) -> Iterator[dict[str, VocPart]]:
    """XML files in a folder of their own; in folders of splits, as Roboflow's; beside the images."""
    for name in _XML_FOLDERS:
        if files := _xml_files(home / name):
            folders = _existing(home, (*_IMAGE_FOLDERS, name, "."))
            yield {s: VocPart(home, m, folders) for s, m in _members_by_split(home, files).items()}
    parts = {}
    for split, names in SPLIT_NAMES.items():
        for name in reversed(names):
            inner = [home / name / folder for folder in (*_XML_FOLDERS, "")]
            if files := next((found for folder in inner if (found := _xml_files(folder))), {}):
                folders = _existing(home, [f"{name}/{f}" for f in (*_IMAGE_FOLDERS, *_XML_FOLDERS)] + [name])
                parts[split] = VocPart(home, _members(files), folders)
    yield parts
    direct = {Path(n).stem: home / n for n in _names(home) if n.lower().endswith(".xml")}
    yield {"train": VocPart(home, _members(direct), _existing(home, (".", *_IMAGE_FOLDERS)))}


def _members_by_split(home: Path, files: Mapping[str, Path]) -> dict[str, list[VocMember]]:
    """By the lists of ImageSets/Main, else by the folders that the files are in, else all for training."""
    lists = {p.stem.lower(): p for p in sorted((home / "ImageSets" / "Main").glob("*.txt"))}
    chosen = {s: lists[n] for s, names in SPLIT_NAMES.items() for n in names if n in lists}
    if not chosen:
        whole = [lists[name] for name in _WHOLE_LISTS if name in lists]
        whole = whole or [p for name, p in lists.items() if len(lists) == 1 and split_of(Path(name)) == ""]
        chosen = dict(zip(["train"], whole, strict=False))
    if chosen:
        return {split: _listed(file, files) for split, file in chosen.items()}
    by_folder = {s: {k: f for k, f in files.items() if split_of(Path(k).parent) == s} for s in SPLIT_NAMES}
    if any(by_folder.values()):
        return {split: _members(found) for split, found in by_folder.items() if found}
    return {"train": _members(files)}


def _listed(file: Path, files: Mapping[str, Path]) -> list[VocMember]:
    """What a list names: a stem a line, or a stem and 1 or -1, in quotes where it has spaces."""
    found: dict[str, VocMember] = {}
    for number, line in enumerate(read_lines(file), 1):
        stem = line.strip().strip('"')
        words = stem.split()
        if stem not in files and len(words) == 2 and words[1] in ("-1", "0", "1"):
            stem = words[0]
        if stem not in files and (is_image(stem) or stem.endswith(".xml")):
            stem = str(PurePosixPath(stem).with_suffix(""))
        if stem:
            found.setdefault(stem, VocMember(stem, files.get(stem), f"{file} line {number}"))
    return [found[stem] for stem in sorted(found)]


def _members(files: Mapping[str, Path]) -> list[VocMember]:
    return [VocMember(stem, files[stem]) for stem in sorted(files)]


def _xml_files(folder: Path) -> dict[str, Path]:
    """Path of an XML file below a folder, without its suffix -> the file."""
    names = files_below(folder, (".xml",)) if folder.is_dir() else []
    return {str(PurePosixPath(name).with_suffix("")): folder / name for name in names}


def _direct_images(folder: Path) -> list[str]:
    return [name for name in _names(folder) if is_image(name)]


def _names(folder: Path) -> list[str]:
    """Of the files in a folder, but no hidden ones; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
    except OSError:
        return []


def _existing(home: Path, folders: Sequence[str]) -> list[str]:
    """Those that are there, as folders or as archives in place of these."""
    archives = {f.removesuffix(end) for f in _names(home) for end in (".tar", ".zip") if f.endswith(end)}
    return [folder for folder in folders if folder in archives or (home / folder).is_dir()]
