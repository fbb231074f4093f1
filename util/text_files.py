"""Text files that users write: class lists, label rows, YAML, lists of images, tables. One reader for all.

UTF-8 with or without a byte order mark, or UTF-16 with one; lines end with \\n, \\r\\n or \\r.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path

from util.errors import UserError

# Bytes of a file that is read as a whole.
LARGEST = 2**26
_BLOCK = 2**20
_NEWLINE = re.compile(r"\r\n|\r|\n")


def read_text(path: Path, largest: int = LARGEST) -> str:
    """The content of a text file, every line end as \\n.

    Raises UserError where it is missing, has more than `largest` bytes, holds zero bytes or is of another
    encoding; the line says which byte, and in which line of the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path!s:.300}: cannot be read ({_reason(error)})") from None
    if len(data) > largest:
        raise UserError(f"{path}: has more than {largest >> 20} MiB")
    try:
        text = decode(data)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_fault(error, 0, data)}") from None
    return _NEWLINE.sub("\n", _whole(text, path))


def read_lines(path: Path, largest: int = LARGEST) -> list[str]:
    """The lines of a text file, without their ends. Raises UserError as `read_text` does."""
    lines = read_text(path, largest).split("\n")
    return lines[:-1] if not lines[-1] else lines


def stream_lines(path: Path) -> Iterator[str]:
    """The lines of a text file of any size, each with its \\n. Raises UserError like `read_text`."""
    try:
        with path.open("rb") as file:
            encoding = _encoding(file.read(4))
            file.seek(0)
            # "-sig" drops the mark, but counts the bytes of a fault from behind it.
            encoding = "utf-8-sig" if encoding == "utf-8" else encoding
            with io.TextIOWrapper(file, encoding=encoding, newline=None) as text:
                for number, line in enumerate(text, 1):
                    yield _whole(line, path, number)
    except UnicodeDecodeError:
        raise UserError(f"{path}: {_located_fault(path)}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path!s:.300}: cannot be read ({_reason(error)})") from None


def decode(data: bytes) -> str:
    """The text of a whole file, without its byte order mark. Raises UnicodeDecodeError."""
    return data.decode(_encoding(data)).removeprefix("\ufeff")


def encoding_fault(byte: int, position: int, line: int) -> str:
    """What is wrong with a byte that is not UTF-8, and the fix. position, line: in the file, from 1 on."""
    return (
        f"line {line}: byte {position} of the file, 0x{byte:02x}, is not UTF-8; save the file as UTF-8 "
        "(in an editor: save with encoding)"
    )


def _encoding(start: bytes) -> str:
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def _whole(text: str, path: Path, first: int = 1) -> str:
    """The text. first: the number of its first line. Raises UserError where it holds a zero byte."""
    if (zero := text.find("\0")) < 0:
        return text
    line = first + len(_NEWLINE.findall(text, 0, zero))
    raise UserError(f"{path}: is not a text file (a zero byte in line {line})")


def _located_fault(path: Path) -> str:
    """The first byte of a file that cannot be decoded, found by reading it again."""
    with path.open("rb") as file:
        decoder = codecs.getincrementaldecoder(_encoding(file.read(4)))()
        file.seek(0)
        lines = read = 0
        while True:
            data = file.read(_BLOCK)
            pending = decoder.getstate()[0]
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                return _fault(error, read - len(pending), pending + data, lines)
            if not data:
                return "changed while it was read"
            lines, read = lines + _newlines(data), read + len(data)


def _fault(error: UnicodeDecodeError, before: int, data: bytes, lines: int = 0) -> str:
    """data: what was decoded, `before` bytes and `lines` lines from the file's start."""
    position, line = before + error.start + 1, lines + _newlines(data[: error.start]) + 1
    if error.encoding.startswith("utf-16"):
        return f"line {line}: byte {position} of the file is not UTF-16"
    if b"\0" in data:
        return "is not a text file"
    return encoding_fault(data[error.start], position, line)


def _newlines(data: bytes) -> int:
    return data.count(b"\n") + data.replace(b"\r\n", b"").count(b"\r")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)[:100]
