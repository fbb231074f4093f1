"""The JSON files of a data folder: which of them hold annotations, and of which split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from datasets.annotations.source import split_of

# A folder of more JSON files than this has one for each image, as LabelMe writes them.
MOST_IN_A_FOLDER = 50
# Folders that tools keep annotation files in, beside those named for a split.
HOMES = ("annotations", "annotation", "labels")
_KEYS = ("images", "annotations", "categories")
_BLOCK = 2**22


@dataclass(frozen=True)
class JsonCandidate:
    """A JSON file that may hold annotations.

    split: 'train', 'val' or 'test' by its name or folder, '' where these name none.
    reason: why it is no annotation file, '' for one.
    """

    path: Path
    split: str
    reason: str


def json_candidates(folder: Path) -> list[JsonCandidate]:
    """The JSON files directly in a folder, in its `annotations` and in its folders of splits, by name."""
    found = []
    for home in _places(folder):
        files = _json_files(home)
        if len(files) <= MOST_IN_A_FOLDER:
            found += [JsonCandidate(f, split_of(f.relative_to(folder)), _reason(f)) for f in files]
    return found


def pick(candidates: Sequence[JsonCandidate], split: str) -> JsonCandidate | None:
    """The one annotation file of 'train' or 'val'; None where there is none, or no telling which.

    Where no file is named for either split, a single one is all there is: it is for training.
    """
    usable = [c for c in candidates if not c.reason]
    chosen = [c for c in usable if c.split == split]
    if split == "train" and not any(c.split in ("train", "val") for c in usable):
        chosen = [c for c in usable if not c.split]
    # CVAT, as COCO itself, writes keypoints of the same images beside the boxes.
    instances = [c for c in chosen if c.path.name.lower().startswith("instances")]
    chosen = instances if len(chosen) > 1 else chosen
    return chosen[0] if len(chosen) == 1 else None


def _places(folder: Path) -> Iterator[Path]:
    """The folders that are searched."""
    yield folder
    for inner in folders_in(folder):
        by_split = bool(split_of(Path(inner.name)))
        if by_split or inner.name.lower() in HOMES:
            yield inner
            yield from (deep for deep in folders_in(inner) if by_split or split_of(Path(deep.name)))


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, but no hidden ones; none where it cannot be read."""
    return _entries(folder, folders=True)


def _json_files(folder: Path) -> list[Path]:
    return [p for p in _entries(folder, folders=False) if p.suffix.lower() == ".json"]


def _entries(folder: Path, folders: bool) -> list[Path]:
    """The folders, or else the files, of a folder, but no hidden ones; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() == folders and not e.name.startswith(".")]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _reason(path: Path) -> str:
    """Why a JSON file is no annotation file."""
    try:
        status = path.stat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return _lacks(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)  # a start asks for it several times
def _lacks(path: Path, size: int, modified_ns: int) -> str:
    """The keys are searched for, not parsed: a file may be large."""
    wanted = {key: re.compile(rb'"%s"\s*:' % key.encode()) for key in _KEYS}
    segments = re.compile(rb'"segments_info"\s*:')
    try:
        with path.open("rb") as file:
            rest = b""
            while block := file.read(_BLOCK):
                window = rest + block
                if segments.search(window):
                    return "is panoptic"
                wanted = {key: word for key, word in wanted.items() if not word.search(window)}
                if not wanted:
                    return ""
                rest = window[-64:]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"has no {', '.join(f'`{key}`' for key in wanted)}"
