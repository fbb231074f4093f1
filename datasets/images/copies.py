"""Image files with the same bytes under several names."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from datasets.images.reader import ImageFolder

# Images of the same length that differ do so within their first bytes, nearly always.
_FIRST_BYTES = 16384


def copies_among(images: ImageFolder, names: Iterable[str]) -> dict[str, str]:
    """Name -> the alphabetically first of the images with the same bytes, for all but that one.

    Looks at files only, not into archives. Reads what no length tells apart; what cannot be read is no copy.
    """
    copies: dict[str, str] = {}
    for same_length in _groups(sorted(set(names)), lambda name: _length(images, name)):
        for same_start in _groups(same_length, lambda name: _digest(images, name, _FIRST_BYTES)):
            for same in _groups(same_start, lambda name: _digest(images, name)):
                copies |= dict.fromkeys(same[1:], same[0])
    return copies


def _groups(names: Sequence[str], key: Callable[[str], object]) -> Iterable[list[str]]:
    """The names that share a key with others, None being no key."""
    by_key: dict[object, list[str]] = defaultdict(list)
    for name in names:
        if (found := key(name)) is not None:
            by_key[found].append(name)
    return (group for group in by_key.values() if len(group) > 1)


def _length(images: ImageFolder, name: str) -> int | None:
    if images.refusal(name):
        return None
    path = images.file_of(name)
    return None if path is None else os.stat(path).st_size


def _digest(images: ImageFolder, name: str, first: int = -1) -> bytes | None:
    """Of the first bytes of a file, or of all."""
    path = images.file_of(name)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(first), digest_size=16).digest()
    except OSError:
        return None
