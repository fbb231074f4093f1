"""What is to be predicted: images, folders, globs, list files, videos and cameras. Needs no torch."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.images.class_sources import IMAGE_SUFFIXES, files_below
from util.errors import UserError
from util.text_files import read_lines

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
LIST_SUFFIX = ".txt"
_SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES
# Names of drawings end so: folders and globs leave them out, wherever an earlier run wrote them.
DRAWN_IMAGE, DRAWN_VIDEO = ".drawn.jpg", ".drawn.mp4"
_CAMERA = re.compile(r"camera:(\d+)")


@dataclass(frozen=True)
class Source:
    """One image file, video file or camera.

    path: as the user named it.
    name: what its results are named after: its path below the deepest folder that holds all the sources,
        with '/' between folders. Unique among them.
    """

    path: str
    name: str

    @property
    def is_camera(self) -> bool:
        return _CAMERA.fullmatch(self.path) is not None

    @property
    def is_video(self) -> bool:
        """Whether it has frames: a video file or a camera."""
        return self.is_camera or self.path.lower().endswith(VIDEO_SUFFIXES)


def find_sources(inputs: Iterable[str], output: Path) -> list[Source]:
    """Every source that the inputs name, each once, in their order.

    inputs: image and video files; folders, searched at any depth; globs; list files (.txt, a path a line,
        relative to the current folder or else to the list's); cameras, as `camera:0`.
    output: where results go. Folders and globs leave out what lies below it, and drawings of earlier runs.
    Raises UserError for an input that does not exist or names no image and no video.
    """
    # By absolute path: a file that is named twice, however it is spelt, counts once.
    found: dict[str, str] = {}
    for path in (path for text in inputs for path in _expand(text, output)):
        found.setdefault(path if _CAMERA.fullmatch(path) else os.path.abspath(path), path)
    folders = [os.path.dirname(file) for file, path in found.items() if not _CAMERA.fullmatch(path)]
    root = os.path.commonpath(folders) if folders else ""
    return [Source(path, _result_name(file, root)) for file, path in found.items()]


def _result_name(file: str, root: str) -> str:
    if _CAMERA.fullmatch(file):
        return file.replace(":", "_")
    return Path(os.path.relpath(file, root)).as_posix()


def _expand(text: str, output: Path) -> Iterator[str]:
    if _CAMERA.fullmatch(text):
        yield text
    elif os.path.isdir(text):
        yield from _in_folder(text, output)
    elif os.path.isfile(text):
        if text.lower().endswith(LIST_SUFFIX):
            yield from _listed(Path(text), output)
        else:
            yield text
    elif glob.has_magic(text):
        yield from _matches(text, output)
    else:
        raise UserError(f"{text[:300]}: no such image, folder, list, video or camera:N.")


def _in_folder(folder: str, output: Path) -> list[str]:
    inside = [os.path.join(folder, name) for name in files_below(folder, _SUFFIXES)]
    found = _without_results(inside, folder, output)
    if not found:
        drawn = f"; {len(inside)} results of predictions are left out" if inside else ""
        raise UserError(f"{folder}: contains no image ({', '.join(IMAGE_SUFFIXES)}) and no video{drawn}.")
    return found


def _matches(pattern: str, output: Path) -> list[str]:
    """The images and videos that match, and those in folders that match."""
    found: list[str] = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        if not os.path.isdir(path):
            found += [path] if path.lower().endswith(_SUFFIXES) else []
        elif "**" not in pattern:  # which matches what lies in folders by itself
            found += [os.path.join(path, name) for name in files_below(path, _SUFFIXES)]
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts)
    found = _without_results(found, os.path.join("", *fixed), output)
    if not found:
        raise UserError(f"{pattern}: matches no image and no video.")
    return found


def _listed(file: Path, output: Path) -> Iterator[str]:
    lines = read_lines(file)
    entries = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not entries:
        raise UserError(f"{file}: an empty list; it needs a path a line.")
    for number, entry in entries:
        if not entry.isprintable():
            raise UserError(f"{file}, line {number}: {entry[:40]!r} is no path.")
        beside = str(file.parent / entry)
        path = entry if os.path.exists(entry) or not os.path.exists(beside) else beside
        if path.lower().endswith(LIST_SUFFIX):
            raise UserError(f"{file}, line {number}: {entry} is no image; lists do not hold lists.")
        try:
            yield from _expand(path, output)
        except UserError as error:
            raise UserError(f"{file}, line {number}: {error}") from None


def _without_results(paths: Sequence[str], folder: str, output: Path) -> list[str]:
    """Those that are no drawings and do not lie in `output`, where that is a folder inside `folder`."""
    searched, own = os.path.join(os.path.abspath(folder), ""), os.path.join(os.path.abspath(output), "")
    skips = own.startswith(searched) and own != searched
    return [
        path
        for path in paths
        if not path.lower().endswith((DRAWN_IMAGE, DRAWN_VIDEO))
        and not (skips and os.path.abspath(path).startswith(own))
    ]
