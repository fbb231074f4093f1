"""Groups of images that show nearly the same: shots of one scene, versions of one photograph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from util.errors import UserError

# Of 64 bits, how many may differ. Any two images; two whose numbers follow one another.
_ANY, _NEIGHBOURS = 8, 16
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
# What Roboflow appends to the name of a file.
_VERSION = re.compile(r"\.rf\.[0-9A-Za-z]+$")


def near_duplicates(files: Sequence[Path], names: Sequence[str]) -> np.ndarray:
    """(I,) int64: the group of each image, numbered in the order of their first images.

    Two images are near-duplicates where their difference hashes (64 bits) are nearly alike; those whose names
    have consecutive numbers, as a camera gives them, where they are rather alike. Groups are what such pairs
    connect. names: of the files before they were renamed, '' where that is not known.
    Raises UserError for a file that is no image.
    """
    hashes = np.stack([difference_hash(file) for file in files])
    series = [_place(name) for name in names]
    pairs: list[tuple[int, int]] = []
    for first in range(len(files)):
        distances = _ONES[hashes[first + 1 :] ^ hashes[first]].sum(1)
        for second in (np.flatnonzero(distances <= _NEIGHBOURS) + first + 1).tolist():
            alike = distances[second - first - 1] <= _ANY
            if alike or _consecutive(series[first], series[second]):
                pairs.append((first, second))
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(pairs), bool), (rows, columns)), shape=(len(files), len(files)))
    label = connected_components(graph, directed=False)[1]
    # In the order of their first images, whatever the library's is.
    _, first_images = np.unique(label, return_index=True)
    return np.argsort(np.argsort(first_images))[label]


def difference_hash(file: Path) -> np.ndarray:
    """(8,) uint8: whether each of 8x8 areas is darker than the one to its right."""
    try:
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: cannot be read as an image ({error})") from None
    return np.packbits(grey[:, 1:] > grey[:, :-1])


def _place(name: str) -> tuple[str, int] | None:
    """The name without its last number, and that number; None where it has none."""
    stem = _VERSION.sub("", PurePosixPath(name).stem)
    found = re.fullmatch(r"(.*?)(\d{1,15})(\D*)", stem, re.S)
    return (f"{found[1]} {found[3]}", int(found[2])) if found else None


def _consecutive(first: tuple[str, int] | None, second: tuple[str, int] | None) -> bool:
    """Also where it is the same number: two versions of one image."""
    if first is None or second is None:
        return False
    return first[0] == second[0] and abs(first[1] - second[1]) <= 1
