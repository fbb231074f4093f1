"""Large annotation files entry by entry: neither all text nor all objects are in memory at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from util.errors import UserError

_CHUNK = 1 << 20
_SPACE = " \t\n\r"


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


def read_entries(path: str | Path) -> Iterator[Entry]:
    """The parts of the JSON object in a file, in its order.

    Raises UserError naming the file and the place where it is missing, ends early or is no JSON object.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from _Scanner(file, path).entries()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a JSON text file ({error.reason})") from None


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


class _Scanner:
    """A window of text that moves over the file."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.text = ""
        self.position = 0
        self.before = 0
        self.ended = False
        self.decoder = json.JSONDecoder()

    def entries(self) -> Iterator[Entry]:
        self.expect("{", "a JSON object")
        while self.next_character() != "}":
            key, _ = self.value()
            if not isinstance(key, str):
                self.fail("a key is expected")
            self.expect(":", "`:`")
            yield from self.members(key)
            if self.next_character() == ",":
                self.position += 1
            elif self.next_character() != "}":
                self.fail("`,` or `}` is expected")

    def members(self, key: str) -> Iterator[Entry]:
        if self.next_character() != "[":
            yield Entry(key, *self.value(), False)
            return
        self.position += 1
        empty = True
        while self.next_character() != "]":
            yield Entry(key, *self.value(), True)
            empty = False
            if self.next_character() == ",":
                self.position += 1
            elif self.next_character() != "]":
                self.fail("`,` or `]` is expected")
        self.position += 1
        if empty:
            yield Entry(key, [], "[]", False)

    def value(self) -> tuple[Any, str]:
        """The value at the position, after it was moved behind it."""
        self.next_character()
        wanted = _CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if self.ended:
                    self.fail(error.msg, error.pos)
            else:
                # A number at the end of the window may go on behind it.
                if end < len(self.text) or self.ended:
                    text, self.position = self.text[self.position : end], end
                    return value, text
            self.read(wanted)
            wanted *= 2

    def expect(self, character: str, meaning: str) -> None:
        if self.next_character() != character:
            self.fail(f"{meaning} is expected")
        self.position += 1

    def next_character(self) -> str:
        """The next one that is no space, which becomes the position."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                self.fail("")
            self.read(_CHUNK)

    def read(self, count: int) -> None:
        chunk = self.file.read(count)
        self.ended = not chunk
        self.before += self.position
        self.text = self.text[self.position :] + chunk
        self.position = 0

    def fail(self, reason: str, place: int | None = None) -> None:
        place = self.position if place is None else place
        if self.ended and (place >= len(self.text) - 10 or reason.startswith("Unterminated")):
            fault = f"ends early (after {self.before + len(self.text)} characters): an unfinished copy?"
        else:
            fault = f"is not a JSON object of lists (character {self.before + place}: {reason})"
        raise UserError(f"{self.path}: {fault}")
