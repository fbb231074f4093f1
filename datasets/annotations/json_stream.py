"""Large annotation files part by part, in the file's order: one JSON object with a few long lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from datasets.annotations.json_errors import is_cut, require_file
from datasets.annotations.json_polygons import without_polygons
from datasets.annotations.json_window import BLOCK, Window
from util.errors import UserError


class Entry(NamedTuple):
    """A part of a JSON object: an element of one of its lists, or another of its values.

    key:   of the object.
    value: parsed.  text: as it is in the file.
    listed: whether it is an element of the list under `key`. An empty list is one entry that is not listed.
    """

    key: str
    value: Any
    text: str
    listed: bool


def read_entries(path: str | Path, block: int = BLOCK) -> Iterator[Entry]:
    """The parts of the JSON object in a file, in its order. block: bytes read at a time.

    Raises UserError naming the file and the place where it is missing, ends early or is no JSON object.
    """
    with _open(Path(path), block) as window:
        for key in _keys(window):
            if window.token() != "[":
                yield Entry(key, *window.value(), False)
                continue
            window.take("[")
            if window.token() == "]":
                window.take("]")
                yield Entry(key, [], "[]", False)
                continue
            more = True
            while more:
                yield Entry(key, *window.value(), True)
                more = window.more("]")


def read_members(path: str | Path, block: int = BLOCK) -> Iterator[tuple[str, Any]]:
    """(key, value) of the JSON object in a file, fast: lists in pieces, polygons left out unparsed.

    A list comes as the same key several times, each time with some of its elements; an empty one comes once.
    `segmentation` is missing or 0 in objects where it was a list of numbers. block: bytes read at a time.
    Raises UserError as `read_entries` does.
    """
    with _open(Path(path), block, without_polygons) as window:
        for key in _keys(window):
            if window.token() != "[":
                yield key, window.value()[0]
                continue
            window.take("[")
            if window.token() == "]":
                window.take("]")
                yield key, []
            else:
                yield from ((key, piece) for piece in window.pieces())


def read_list(path: str | Path, block: int = BLOCK) -> Iterator[list]:
    """The elements of the JSON list in a file, some at a time. Raises UserError as `read_entries` does."""
    with _open(Path(path), block, opening="[") as window:
        window.take("[")
        if window.token() == "]":
            window.take("]")
        else:
            yield from window.pieces()
        window.finish()


def write_entries(file: TextIO, entries: Iterable[tuple[str, str, bool]]) -> None:
    """Writes (key, JSON text, listed) as one object; those of a list stand next to one another."""
    before: tuple[str, bool] | None = None
    file.write("{")
    for key, text, listed in entries:
        if before == (key, True):
            file.write(f", {text}")
        else:
            file.write(_closing(before) + f"{json.dumps(key)}: {'[' if listed else ''}{text}")
        before = (key, listed)
    file.write("]}" if before and before[1] else "}")


def _closing(before: tuple[str, bool] | None) -> str:
    return "" if before is None else "], " if before[1] else ", "


_OTHERWISE = {
    "{": "holds a list, not an object with `images` and other lists",
    "[": "holds an object, not a list of predictions",
}


@contextmanager
def _open(
    path: Path, block: int, shortened: Callable[[str], str] | None = None, opening: str = "{"
) -> Iterator[Window]:
    require_file(path)
    try:
        with path.open("rb") as file:
            window = Window(file, block, shortened)
            try:
                window.fill()
                if window.token() in "[{" and window.token() != opening:
                    raise UserError(f"{path}: {_OTHERWISE[opening]}")
                yield window
                return
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                fault = window.fault(path, error)
                known = shortened is None or isinstance(error, UnicodeDecodeError) or is_cut(error)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not known:
        # Places are those of the whole text.
        for _ in read_entries(path, block):
            continue
    raise fault


def _keys(window: Window) -> Iterator[str]:
    """The object's keys; whoever asks takes the value before asking again."""
    window.take("{")
    more = window.token() != "}"
    if not more:
        window.take("}")
    while more:
        yield window.key()
        more = window.more("}")
    window.finish()
