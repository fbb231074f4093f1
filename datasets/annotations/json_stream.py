"""Large JSON files piece by piece: one object with a few long lists, or one list, in the file's order.

A window of text moves over the file. What it holds of a list, up to the last `}, {` or the list's own end, is
decoded at once by msgspec; where msgspec refuses (NaN, a value of the wrong type, a bracket in a string that
looks like a boundary), Python's parser takes the same elements one by one and finds the place of the fault.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import msgspec

from datasets.annotations.json_errors import (
    ENDS_EARLY,
    NOT_VALID,
    TOO_DEEP,
    TOO_LONG,
    convert,
    is_cut,
    not_text,
    require_file,
)
from util.errors import UserError

# Bytes read at a time: pieces that stay in the CPU's caches are decoded 1.4 times faster than 8 MiB.
BLOCK = 2**18
_SPACE = " \t\n\r"
_LIST_END = re.compile(r"\}[ \t\n\r]*\]")
_DECODER = json.JSONDecoder()

Refuse = Callable[[Any, msgspec.ValidationError], None]


class Entry(NamedTuple):
    """A part of a JSON object: an element of one of its lists, or another of its values.

    key: of the object.  text: as it is in the file.
    listed: whether it is an element of the list under `key`. An empty list is one entry that is not listed.
    """

    key: str
    text: str
    listed: bool

    @property
    def value(self) -> Any:
        """Parsed."""
        try:
            return msgspec.json.decode(self.text)
        except msgspec.DecodeError:  # NaN, half of a surrogate pair
            return json.loads(self.text)


def read_entries(path: str | Path, block: int = BLOCK) -> Iterator[Entry]:
    """The parts of the JSON object in a file, with their text.

    Raises UserError naming the file and the place if it is missing, ends early or is not a JSON object.
    """
    with _open(Path(path), block) as window:
        for key in window.keys():  # noqa: SIM118
            if not window.starts_list():
                yield Entry(key, window.value()[1], False)
            elif window.is_empty_list():
                yield Entry(key, "[]", False)
            else:
                for rows in window.pieces(msgspec.Raw):
                    yield from (Entry(key, bytes(row).decode(), True) for row in rows)


def read_members(
    path: str | Path,
    types: Mapping[str, Any],
    refuse: Callable[[str, Any, msgspec.ValidationError], None] | None = None,
    block: int = BLOCK,
) -> Iterator[tuple[str, Any]]:
    """(key, value) of the JSON object in a file. A list comes in pieces, with its key each time.

    types: key -> type of the elements of its list, as msgspec takes it. Of other lists
        the elements are skipped, and the pieces are empty. Values may be text where their meaning is plain
        (msgspec's lax mode). A type's `from_value` gets the parsed elements that msgspec refuses.
    refuse: called with key, element and error for each element that is not of its type, which is then left
        out; without it the first such element raises the error.
    Raises UserError as `read_entries` does.
    """
    with _open(Path(path), block) as window:
        for key in window.keys():  # noqa: SIM118
            if not window.starts_list():
                yield key, window.value()[0]
            elif window.is_empty_list():
                yield key, []
            else:
                report = None if refuse is None else lambda value, error, key=key: refuse(key, value, error)
                for rows in window.pieces(types.get(key, msgspec.Raw), report):
                    yield key, rows if key in types else []


def read_list(path: str | Path, block: int = BLOCK) -> Iterator[list]:
    """The elements of the JSON list in a file, some at a time. Raises UserError as `read_entries` does."""
    with _open(Path(path), block, opening="[") as window:
        window.token()
        if not window.is_empty_list():
            yield from window.pieces(Any)
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
def _open(path: Path, block: int, opening: str = "{") -> Iterator[_Window]:
    require_file(path)
    try:
        with path.open("rb") as file:
            window = _Window(file, block)
            try:
                window.fill()
                if window.token() in "[{" and window.token() != opening:
                    raise UserError(f"{path}: {_OTHERWISE[opening]}")
                yield window
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise window.fault(path, error) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


class _Window:
    """The part of a file's text that is being read.

    Methods raise JSONDecodeError, which `fault` turns into an error for the user.

    text: what is in memory, nothing before the first `fill`.  at: the next character to take.
    ended: nothing follows `text`.
    """

    def __init__(self, file: BinaryIO, block: int) -> None:
        """block: bytes read at a time."""
        self._file = file
        self._block = block
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(file.read(4)))()
        file.seek(0)
        # Characters and lines before `text`, and how many of those characters are of its first line.
        self._before = self._lines = self._column = 0
        self.text = ""
        self.at = 0
        self.ended = False

    @property
    def position(self) -> int:
        """Characters taken so far."""
        return self._before + self.at

    def fill(self) -> bool:
        """Drops what was taken and reads on, at least as much as is left; False at the end."""
        if self.ended:
            return False
        newline = self.text.rfind("\n", 0, self.at)
        self._lines += self.text.count("\n", 0, self.at)
        self._column = self.at - newline - 1 if newline >= 0 else self._column + self.at
        self._before += self.at
        self.text, self.at = self.text[self.at :], 0
        data = self._file.read(max(self._block, len(self.text)))
        self.ended = not data
        self.text += self._decoder.decode(data, final=self.ended)
        return not self.ended

    def token(self) -> str:
        """The next character that is not white space; it becomes the next one to take."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.fill():
                raise json.JSONDecodeError("Expecting value", self.text, self.at)

    def take(self, expected: str) -> None:
        """Takes the next character, which must be this one."""
        if self.token() != expected:
            raise json.JSONDecodeError(f"Expecting {expected!r}", self.text, self.at)
        self.at += 1

    def more(self, closing: str) -> bool:
        """Takes a comma, or the bracket that closes an object or list: then False."""
        token = self.token()
        if token not in (",", closing):
            raise json.JSONDecodeError("Expecting ',' delimiter", self.text, self.at)
        self.at += 1
        return token == ","

    def keys(self) -> Iterator[str]:
        """Takes the file's object, key by key; the caller takes each value before asking for the next."""
        self.take("{")
        more = self.token() != "}"
        if not more:
            self.take("}")
        while more:
            if self.token() != '"':
                raise json.JSONDecodeError("Expecting property name in double quotes", self.text, self.at)
            name = self.value()[0]
            self.take(":")
            yield name
            more = self.more("}")
        self.finish()

    def starts_list(self) -> bool:
        """Whether the next value is a list."""
        return self.token() == "["

    def is_empty_list(self) -> bool:
        """Takes the bracket that opens a list, and the one that closes it if nothing stands between them."""
        self.take("[")
        empty = self.token() == "]"
        self.at += empty
        return empty

    def value(self) -> tuple[Any, str]:
        """Takes one whole value; also returns its text."""
        self.token()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not (is_cut(error) and self.fill()):
                    raise
            except RecursionError:
                raise json.JSONDecodeError(TOO_DEEP, self.text, self.at) from None
            except ValueError:
                raise json.JSONDecodeError(TOO_LONG, self.text, self.at) from None
            else:
                # A number that reaches the window's end may go on behind it.
                if self.text[end : end + 1] not in ("", ".", "e", "E") or not self.fill():
                    end = min(end, len(self.text))
                    text, self.at = self.text[self.at : end], end
                    return value, text

    def pieces(self, row_type: Any, refuse: Refuse | None = None) -> Iterator[list]:
        """Takes the rest of a list that is not empty and whose bracket was taken: some elements at a time.

        row_type: of the elements, as msgspec takes it.  refuse: as in `read_members`.
        """
        decode = msgspec.json.Decoder(list[row_type], strict=False).decode
        more = True
        while more:
            if len(self.text) - self.at < self._block // 2:
                self.fill()
            end = self._boundary()
            whole = self.text[self.at : end]
            try:
                # Where `[`, the text up to `end` and `]` parse, `end` is between two elements.
                rows = decode(f"[{whole}]" if whole else "")
            except (msgspec.DecodeError, RecursionError):
                rows, stop = [], self._before + end
                while more:
                    rows += self._element(row_type, refuse)
                    more = self.more("]")
                    if self.position >= stop:
                        break
            else:
                self.at = end
                more = self.more("]")
            yield rows

    def _element(self, row_type: Any, refuse: Refuse | None) -> list:
        """The next element of a list; none if it is not of its type and `refuse` lets it pass."""
        value, text = self.value()
        if row_type is msgspec.Raw:
            return [msgspec.Raw(text)]
        try:
            make = getattr(row_type, "from_value", None)
            return [make(value) if make else convert(value, row_type)]
        except msgspec.ValidationError as error:
            if refuse is None:
                raise
            refuse(value, error)
            return []

    def _boundary(self) -> int:
        """Where the list may end, else the end of the object before the window's last `}, {`, else here."""
        if end_of_list := _LIST_END.search(self.text, self.at):
            return end_of_list.start() + 1
        opening = len(self.text)
        while (opening := self.text.rfind("{", self.at, opening)) >= 0:
            closing = self.text.rfind("}", self.at, opening)
            if closing < 0:
                break
            if self.text[closing + 1 : opening].strip(_SPACE) == ",":
                return closing + 1
        return self.at

    def finish(self) -> None:
        """Nothing but white space may follow."""
        try:
            self.token()
        except json.JSONDecodeError:
            return
        raise json.JSONDecodeError("Extra data", self.text, self.at)

    def fault(self, path: Path, error: json.JSONDecodeError | UnicodeDecodeError) -> UserError:
        """What is wrong with the file, and where."""
        if isinstance(error, UnicodeDecodeError):
            position = self._file.tell() - len(error.object) + error.start + 1
            line = self._lines + self.text.count("\n") + error.object[: error.start].count(b"\n") + 1
            return UserError(f"{path}: {not_text(error, position, line)}")
        if is_cut(error) and self.ended:
            return UserError(f"{path}: {ENDS_EARLY.format(self._before + len(self.text))}")
        column = error.colno + (self._column if error.lineno == 1 else 0)
        return UserError(f"{path}: {NOT_VALID.format(self._lines + error.lineno, column, error.msg)}")
