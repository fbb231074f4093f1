"""A window of text that moves over a JSON file: neither all text nor all objects are in memory at once."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from datasets.annotations.json_errors import TOO_DEEP, TOO_LONG, ends_early, is_cut, not_text, not_valid
from util.errors import UserError

BLOCK = 8 * 2**20
_SPACE = " \t\n\r"
_ROWS_PER_PIECE = 10_000
_DECODER = json.JSONDecoder()


class Window:
    """The part of a file's text that is being read, and what is taken from it.

    Methods raise JSONDecodeError, which `fault` makes an error for the user.

    text: what is in memory, nothing before the first `fill`.  at: the next character to take.
    ended: nothing follows behind `text`.
    """

    def __init__(
        self, file: BinaryIO, block: int = BLOCK, shortened: Callable[[str], str] | None = None
    ) -> None:
        """block: bytes read at a time. shortened: applied to each piece of text; then no place is known."""
        self._file = file
        self._block = block
        self._shortened = shortened
        self._decoder = codecs.getincrementaldecoder(json.detect_encoding(file.read(4)))()
        file.seek(0)
        # Characters and lines before `text`, and how many of those characters are of its first line.
        self._before = self._lines = self._column = 0
        self._read = 0
        self.text = ""
        self.at = 0
        self.ended = False

    def fill(self) -> bool:
        """Drops what has been taken and reads on, at least as much as is left; False at the end."""
        if self.ended:
            return False
        self._drop()
        data = self._file.read(max(self._block, len(self.text)))
        self.ended = not data
        new = self._decoder.decode(data, final=self.ended)
        self._read += len(new)
        self.text += self._shortened(new) if self._shortened else new
        return not self.ended

    def _drop(self) -> None:
        self._before += self.at
        newline = self.text.rfind("\n", 0, self.at)
        if newline >= 0:
            self._lines += self.text.count("\n", 0, self.at)
            self._column = self.at - newline - 1
        else:
            self._column += self.at
        self.text, self.at = self.text[self.at :], 0

    def token(self) -> str:
        """The next character that is no white space; it becomes the next one to take."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.fill():
                raise json.JSONDecodeError("Expecting value", self.text, self.at)

    def take(self, wanted: str) -> None:
        """Takes the next character, which must be this one."""
        if self.token() != wanted:
            raise json.JSONDecodeError(f"Expecting {wanted!r}", self.text, self.at)
        self.at += 1

    def more(self, closing: str) -> bool:
        """Takes a comma, or the bracket that closes an object or list: then False."""
        token = self.token()
        if token not in (",", closing):
            raise json.JSONDecodeError("Expecting ',' delimiter", self.text, self.at)
        self.at += 1
        return token == ","

    def key(self) -> str:
        """Takes a member's name and the colon."""
        if self.token() != '"':
            raise json.JSONDecodeError("Expecting property name in double quotes", self.text, self.at)
        name = self.value()[0]
        self.take(":")
        return name

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

    def pieces(self) -> Iterator[list]:
        """Takes the rest of a list whose bracket was taken and that is not empty: some elements at a time."""
        # Fails in the list's last window at the latest; where objects hold lists of objects, in the first.
        while (rows := self._many()) is not None:
            yield rows
        more = True
        while more:
            rows = []
            while more and len(rows) < _ROWS_PER_PIECE:
                rows.append(self.value()[0])
                more = self.more("]")
            yield rows

    def _many(self) -> list | None:
        """Elements up to the last `}, {` in the window, parsed at once; None where that fails.

        Where `[`, the text up to there and `]` parse, it stands between two elements and nowhere else.
        """
        if len(self.text) - self.at < self._block // 2:
            self.fill()
        end = _last_boundary(self.text, self.at)
        if end < 0:
            return None
        try:
            rows = json.loads(f"[{self.text[self.at : end]}]")
        except (ValueError, RecursionError):  # `value` says which one and where
            return None
        self.at = self.text.index(",", end) + 1
        return rows

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
            return not_text(path, error.reason, self._file.tell() - len(error.object) + error.start)
        if is_cut(error) and self.ended:
            return ends_early(path, self._read)
        line = self._lines + error.lineno
        column = error.colno + (self._column if error.lineno == 1 else 0)
        return not_valid(path, line, column, error.msg)


def _last_boundary(text: str, start: int) -> int:
    """The end of the object before the last `}, {` behind `start`; -1 where there is none."""
    opening = len(text)
    while (opening := text.rfind("{", start, opening)) >= 0:
        closing = text.rfind("}", start, opening)
        if closing < 0:
            break
        if text[closing + 1 : opening].strip(_SPACE) == ",":
            return closing + 1
    return -1
