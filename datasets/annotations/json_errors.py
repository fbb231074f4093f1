"""JSON files of users: missing, half-written or something else, each is one clear line."""

import json
from pathlib import Path
from typing import Any

from util.errors import UserError, nearest

_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# What Python's parser refuses, in valid JSON too.
TOO_DEEP, TOO_LONG = "is nested too deeply", "holds an integer of too many digits"
_HALF_NUMBERS = ("-", ".", "e", "E", "e-", "e+", "E-", "E+")


def load_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises UserError where there is no such file (naming the nearest one beside it), where it ends early, and
    where it is not JSON at all.
    """
    path = Path(path)
    require_file(path)
    try:
        with path.open("rb") as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        if is_cut(error):
            raise ends_early(path, len(error.doc)) from None
        raise not_valid(path, error.lineno, error.colno, error.msg) from None
    except UnicodeDecodeError as error:
        raise not_text(path, error.reason, error.start) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except ValueError:
        raise UserError(f"{path}: {TOO_LONG}") from None


def is_text(value: Any) -> bool:
    """Whether a JSON value is a text that files and names can hold: not empty, no half of a character."""
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_file(path: Path) -> None:
    """Raises UserError where there is no such file, naming the nearest one beside it."""
    try:
        found = path.is_file()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not found:
        siblings = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        kind = "is a folder, not a JSON file" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}.{nearest(path.name, siblings)}")


def is_cut(error: json.JSONDecodeError) -> bool:
    """Whether the text of `error` may be right so far and only lack its end."""
    rest = error.doc[error.pos : error.pos + 20].strip(" \t\n\r,")
    if error.msg.startswith("Unterminated") or not rest:
        return True
    if len(error.doc.rstrip()) - error.pos > len("-Infinity"):
        return False
    # A cut may fall inside a number, an escape or a word.
    return (
        error.msg.startswith("Invalid \\")
        or rest in _HALF_NUMBERS
        or any(word.startswith(rest) for word in _WORDS)
    )


def ends_early(path: Path, characters: int) -> UserError:
    """The error for a file that is cut off."""
    return UserError(f"{path}: ends early (after {characters} characters): an unfinished download or copy?")


def not_valid(path: Path, line: int, column: int, reason: str) -> UserError:
    """The error for a file that is wrong somewhere."""
    return UserError(f"{path}: is not valid JSON (line {line}, column {column}: {reason})")


def not_text(path: Path, reason: str, position: int) -> UserError:
    """The error for a file that is no text at all."""
    return UserError(f"{path}: is not a JSON text file ({reason} at byte {position})")
