"""From the names in annotations, as tools on other machines write them, to files below a folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from datasets.images.class_sources import IMAGE_SUFFIXES, images_below
from datasets.images.limits import leaves_folder
from util.errors import UserError

# How a name differs from that of its file, least first.
SLASHES = "with / for \\"
ENCODED = "by its URL-decoded form"
UNICODE = "by another Unicode form"
FOLDER = "in another folder"
CASE = "by another letter case"
SUFFIX = "with another suffix"
UPLOAD = "without the prefix of an upload"
# These change what is asked for, not only how it is written: two names may not share a file by them.
_LOOSE = {FOLDER, CASE, SUFFIX, UPLOAD}
# "https://host/", "C:"
_ORIGIN = re.compile(r"^(?:[a-z][a-z0-9+.-]+://[^/]*/|[A-Za-z]:)")
# Label Studio's local files and uploads.
_LOCAL = "?d="
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")


class Located(NamedTuple):
    """found: names that are not files themselves -> the rule, and the file below the folder.
    missing: the other ones -> what is there instead, "" for nothing."""

    found: dict[str, tuple[str, str]]
    missing: dict[str, str]

    def report(self, count: int) -> str:
        """How many of `count` names were found by which rule; "" where none had to be looked for."""
        if not self.found:
            return ""
        rules = defaultdict(list)
        for name, (rule, file) in self.found.items():
            rules[rule].append(f"{name!r:.100} is {file}")
        parts = [f"{len(examples)} {rule} (first: {examples[0]})" for rule, examples in rules.items()]
        return f"{len(self.found)} of {count} images have other names than their files: {'; '.join(parts)}"


def locate(
    names: Sequence[str], root: Path, has: Callable[[str], bool], taken: Collection[str] = ()
) -> Located:
    """Looks for names that are no files below `root`, nor members of its archives.

    Tried in this order: the name with slashes, decoded, in Unicode's composed and decomposed form; the same
    without its first folders, one by one; then the file whose name is equal but for letter case, suffix and
    the prefix of an upload, in the folder that the name says or else anywhere, if there is just one. A folder
    of the name that exists is believed: its images are not looked for elsewhere.

    has:   whether there is such a file or member.
    taken: files that other images are, which no name can mean but by its spelling.
    """
    _is_folder.cache_clear()  # of an earlier look
    index = _Index(root)
    found: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(names):
        forms = _forms(name)
        result = _respelt(forms, root, has) or index.nearest(forms)
        if isinstance(result, str):
            missing[name] = result
        elif has(result[1]):
            found[name] = result
        else:  # a link to nothing, a pipe
            missing[name] = ""
    users = defaultdict(list)
    for name, (rule, file) in found.items():
        users[file].append((rule, name))
    for file, entries in users.items():
        count = len(entries) + (file in taken)
        for rule, name in entries:
            if count > 1 and rule in _LOOSE:
                del found[name]
                missing[name] = f"{file}, which {count} names would mean"
    return Located(found, missing)


def _forms(name: str) -> list[tuple[str, list[str]]]:
    """(rule, parts) of every way to write a name."""
    plain = name.replace("\\", "/")
    decoded = unquote(plain, errors="surrogateescape")
    local = decoded.rpartition(_LOCAL)[2]
    spelt = [(SLASHES, plain), (ENCODED, decoded), (ENCODED, local.replace("\\", "/"))]
    spelt += [(UNICODE, unicodedata.normalize(form, local.replace("\\", "/"))) for form in ("NFC", "NFD")]
    forms: dict[str, tuple[str, list[str]]] = {}
    for rule, text in spelt:
        parts = [part for part in _ORIGIN.sub("", text).split("/") if part not in ("", ".")]
        forms.setdefault("/".join(parts), (rule, parts))
    return [form for text, form in forms.items() if text]


def _respelt(
    forms: list[tuple[str, list[str]]], root: Path, has: Callable[[str], bool]
) -> tuple[str, str] | None:
    """The first form that is there, whole or without its first folders."""
    for skipped in range(max((len(parts) for _, parts in forms), default=0)):
        believed = False
        for rule, parts in forms:
            tail = "/".join(parts[skipped:])
            if not tail or leaves_folder(tail):
                continue
            if has(tail):
                return (FOLDER if skipped else rule), tail
            believed |= _is_folder(root, tuple(parts[skipped:-1]))
        if believed:
            return None
    return None


@lru_cache(maxsize=1024)
def _is_folder(root: Path, parts: tuple[str, ...]) -> bool:
    return bool(parts) and ".." not in parts and os.path.isdir(root.joinpath(*parts))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _stem(name: str) -> tuple[str, str]:
    """A file's name without the suffix of an image, and that suffix."""
    stem, suffix = os.path.splitext(name)
    return (stem, suffix) if suffix.lower() in IMAGE_SUFFIXES else (name, "")


class _Index:
    """The images below a folder, by their names without case and suffix; listed when first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, list[list[str]]] | None = None

    def nearest(self, forms: list[tuple[str, list[str]]]) -> tuple[str, str] | str:
        """The rule and the file that a name means, or what is there instead."""
        if not forms:
            return ""
        parts = forms[-1][1]
        stem, _ = _stem(parts[-1])
        candidates = self._of_stem(stem)
        prefix = _UPLOAD.match(stem) if not candidates else None
        if prefix:
            candidates = self._of_stem(stem[prefix.end() :])
        folder = next(
            (t for n in range(len(parts) - 1) if _is_folder(self._root, tuple(t := parts[n:-1]))), None
        )
        meant = _best(parts, [file for file in candidates if folder in (None, file[:-1])])
        if len(meant) == 1:
            return _rule(parts, meant[0], bool(prefix)), "/".join(meant[0])
        there = _best(parts, candidates)
        return ", ".join("/".join(file) for file in there[:2]) + (" and more" if len(there) > 2 else "")

    def _of_stem(self, stem: str) -> list[list[str]]:
        if self._files is None:
            self._files = defaultdict(list)
            for file in self._listed():
                *folders, last = file.split("/")
                self._files[_folded(_stem(last)[0])].append([*folders, last])
        return self._files.get(_folded(stem), [])

    def _listed(self) -> Iterator[str]:
        try:
            yield from images_below(self._root)
        except (UserError, ValueError):
            return


def _best(parts: list[str], candidates: list[list[str]]) -> list[list[str]]:
    """Those that share most folders with the name, among them those with its suffix."""

    def likeness(file: list[str]) -> tuple[int, bool, bool]:
        shared = 0
        for a, b in zip(reversed(parts[:-1]), reversed(file[:-1]), strict=False):
            if _folded(a) != _folded(b):
                break
            shared += 1
        ours, theirs = _stem(parts[-1])[1], _stem(file[-1])[1]
        return shared, ours.lower() == theirs.lower(), ours == theirs

    most = max(map(likeness, candidates), default=None)
    return [file for file in candidates if likeness(file) == most]


def _rule(parts: list[str], file: list[str], prefix: bool) -> str:
    """What changes most from a name to its file."""
    if prefix:
        return UPLOAD
    if _stem(parts[-1])[1].lower() != _stem(file[-1])[1].lower():
        return SUFFIX
    if parts[-len(file) :] != file and [_folded(p) for p in parts[-len(file) :]] == [
        _folded(p) for p in file
    ]:
        return CASE
    return CASE if parts[-1] != file[-1] else FOLDER
