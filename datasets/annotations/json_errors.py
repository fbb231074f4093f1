"""What can be wrong with a user's JSON file, each as one clear line."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from util.errors import UserError, nearest
from util.text_files import encoding_fault

# An id. `1.0` and `"1"` are as good as 1; `true`, `1.5` and `"one"` are none.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

# msgspec's words for a rule -> ours.
_RULES = {
    "expected `bool | null`": "expected 0 or 1",
    "expected `bool`": "expected 0 or 1",
}
_ONE_OF = re.compile(r"invalid enum value .*", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
ENDS_EARLY = "ends early (after {} characters): an unfinished download or copy?"
NOT_VALID = "is not valid JSON (line {}, column {}: {})"
# What Python's parser refuses in valid JSON too.
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
            raise UserError(f"{path}: {ENDS_EARLY.format(len(error.doc))}") from None
        raise UserError(f"{path}: {NOT_VALID.format(error.lineno, error.colno, error.msg)}") from None
    except UnicodeDecodeError as error:
        lines = error.object[: error.start].count(b"\n")
        raise UserError(f"{path}: {not_text(error, error.start + 1, lines + 1)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except ValueError:
        raise UserError(f"{path}: {TOO_LONG}") from None


def not_text(error: UnicodeDecodeError, position: int, line: int) -> str:
    """What is wrong with a byte of a file, the fix, and its place, from 1 on."""
    if not error.encoding.startswith("utf-8"):
        return f"is not a JSON text file (line {line}: byte {position} is not {error.encoding.upper()})"
    return f"is not a JSON text file ({encoding_fault(error.object[error.start], position, line)})"


def is_text(value: Any) -> bool:
    """Whether a JSON value can be a name: a string, not empty, without half of a surrogate pair."""
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_class_name(value: Any) -> bool:
    """Whether a value can be the name of a class: text without the line ends and control characters that a
    list of a name a line cannot hold."""
    return is_text(value) and bool(value.strip()) and not _CONTROL.search(value)


def convert(value: Any, row_type: Any) -> Any:
    """`msgspec.convert`, where numbers and flags may be text: "7" is 7, "0" and "false" are False.

    Raises ValidationError for half of a surrogate pair too, where msgspec does not.
    """
    try:
        return msgspec.convert(value, row_type, strict=False)
    except UnicodeEncodeError:
        entries = value.items() if isinstance(value, Mapping) else ()
        key = next((key for key, part in entries if not _is_whole(part)), None)
        place = f" - at `$.{key}`" if key else ""
        raise msgspec.ValidationError(f"Holds half of a character{place}") from None


def _is_whole(value: Any) -> bool:
    """Whether no text in a JSON value holds half of a surrogate pair."""
    try:
        return bool(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


def describe_fault(what: str, value: Any, error: msgspec.ValidationError) -> str:
    """The entry, key and value at fault, and the rule: `annotation 3: its `bbox` is [1]: expected ...`."""
    has_id = isinstance(value, Mapping) and "id" in value
    return f"{what} {value['id'] if has_id else value!r:.60}: {describe_reason(value, error)}"


def describe_reason(value: Any, error: msgspec.ValidationError) -> str:
    """What is wrong with an entry: its key and value, and the rule."""
    reason, _, place = str(error).partition(" - at `$.")
    reason = reason[0].lower() + reason[1:]
    for rule, words in _RULES.items():
        reason = reason.replace(rule, words)
    reason = _ONE_OF.sub("expected r, c or f", reason)
    if place:
        key = re.split(r"[.\[`]", place)[0]
        reason = f"its `{key}` is {value[key]!r:.60}: {reason}"
    return reason


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
