"""What a data folder holds, for the message when none of it can be read as annotations."""

from __future__ import annotations

import os
from pathlib import Path

from datasets.annotations.json_search import json_candidates
from datasets.images.class_sources import is_image

_SUFFIXES = (".json", ".xml", ".csv", ".yaml", ".yml", ".txt", ".data", ".zip")
_MOST_NAMED = 6
_MOST_NESTED = 2
# Folders in a folder that are looked into, and files of each.
_MOST_FOLDERS, _MOST_FILES = 200, 10_000


def files_there(folder: Path) -> str:
    """The files in a folder and the folders in it that might hold annotations, in one line.

    JSON files are listed with their split, or with what they lack; then where images are. '' where there is
    neither.
    """
    notes = {c.path: c.reason or _use(c.split) for c in json_candidates(folder)}
    named, many = [], []
    for place in (folder, *_folders(folder)):
        for suffix in _SUFFIXES:
            files = [place / name for name in _names(place) if name.lower().endswith(suffix)]
            if len(files) > _MOST_NAMED:
                many.append(f"{len(files)} {suffix} files in {_relative(place, folder)}")
            else:
                named += [
                    f"{_relative(f, folder)} ({notes[f]})" if notes.get(f) else _relative(f, folder)
                    for f in files
                ]
    more = [f"{len(named) - 2 * _MOST_NAMED} more"] if len(named) > 2 * _MOST_NAMED else []
    images = _images_there(folder)
    return ", ".join([*named[: 2 * _MOST_NAMED], *more, *many[:_MOST_NAMED], *images])


def unpacked_folders(folder: Path) -> list[Path]:
    """The only folder in a folder that holds nothing else but the archive that it came from, and that in it:
    archives are unpacked into a folder of their name."""
    found: list[Path] = []
    while len(found) < _MOST_NESTED:
        entries = [p for p in _children(folder, _MOST_FOLDERS) if not p.name.endswith((".zip", "__MACOSX"))]
        if len(entries) != 1 or not entries[0].is_dir():
            break
        folder = entries[0]
        found.append(folder)
    return found


def _images_there(folder: Path) -> list[str]:
    """The folders with most images, in one phrase."""
    places = (folder, *_folders(folder))
    counts = [(sum(map(is_image, _names(place))), _relative(place, folder)) for place in places]
    most = sorted(sorted(counts, reverse=True)[:_MOST_NAMED], key=lambda c: c[1])
    named = [f"{name} ({count})" for count, name in most if count]
    return [f"images in {', '.join(named)}"] if named else []


def _use(split: str) -> str:
    return f"annotations of {split}" if split else "annotations, named for no split"


def _relative(path: Path, folder: Path) -> str:
    return "the folder itself" if path == folder else path.relative_to(folder).as_posix()


def _folders(folder: Path) -> list[Path]:
    inner = sorted(p for p in _children(folder, _MOST_FOLDERS) if p.is_dir())
    deep = [d for p in inner for d in _children(p, _MOST_FOLDERS) if d.is_dir()]
    return [*inner, *sorted(deep)][:_MOST_FOLDERS]


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in _children(folder, _MOST_FILES))


def _children(folder: Path, most: int) -> list[Path]:
    """The first entries of a folder, none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [Path(e.path) for e, _ in zip(entries, range(most), strict=False) if e.name[0] != "."]
    except OSError:
        return []
