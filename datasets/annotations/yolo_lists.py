"""YOLO's lists of images: a path a line, written on whatever machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datasets.images.class_sources import is_image
from util.files import path_exists
from util.text_files import read_lines


def listed_images(file: Path, root: Path) -> tuple[list[str], list[str]]:
    """The images that a list names, relative to `root`, and a message for each line that names none.

    A line is relative to the list's folder or to `root`. Of paths of another folder or machine, as
    `data/images/a.jpg` of CVAT's, the last parts count, as many as exist. Empty lines and `#` are skipped.
    Raises UserError where the file cannot be read.
    """
    found, missing = [], []
    usual = (file.parent, 0)  # the reading of the line before
    for number, line in enumerate(map(str.strip, read_lines(file)), 1):
        if not line or line.startswith("#"):
            continue
        if not is_image(line.replace("\\", "/")):
            missing.append(f"{file} line {number}: {line!r:.100} is not the path of an image")
            continue
        for folder, dropped, place in _readings(line, file.parent, root, usual):
            if path_exists(place) and not place.is_dir():
                usual = (folder, dropped)
                found.append(Path(os.path.relpath(place, root)).as_posix())
                break
        else:
            missing.append(f"{file} line {number}: there is no image {line!r:.100}")
    return found, missing


def _readings(
    line: str, beside: Path, root: Path, usual: tuple[Path, int]
) -> Iterator[tuple[Path, int, Path]]:
    """The paths that a line may mean, each with its folder and the number of leading parts left out."""
    folder, dropped = usual
    parts = [part for part in line.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if 0 < dropped < len(parts):
        yield folder, dropped, folder.joinpath(*parts[dropped:])
    yield beside, 0, beside / line
    yield root, 0, root / line
    first = 0 if line.startswith(("/", "..")) or "\\" in line else 1
    for number in range(first, len(parts)):
        for home in (beside, root):
            yield home, number, home.joinpath(*parts[number:])
