"""`--options KEY=VALUE ...`: text to values, as the official command line reads them."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from config.loader import merged_overrides
from config.schema import key_types
from config.values import shown
from util.errors import UserError

_BRACKETS = {"[": "]", "(": ")"}
# Entries within entries of one option, `a.b.c=1`.
_DEEPEST = 10


def parse_options(pairs: Iterable[str] | None) -> dict[str, Any]:
    """`["lr=1e-3", "data_aug_scales=480,512"]` -> `{"lr": 0.001, "data_aug_scales": [480, 512]}`.

    A value is a number, True/False, None, `a,b` or `[a,b]` (a list), `{...}` (a dict) or else text; where the
    key is known its type decides, so a single value may stand for a list and digits for text.
    `backbone_args.name=1` sets one entry of a dict; `{'_delete_': True}` in place of the file's, as in
    files. Later pairs win. Keys are not checked here.
    Raises UserError where `=` is missing or a bracket does not close.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UserError(f"--options {shown(pair)}: expected KEY=VALUE, for example lr=0.0002")
        name, *entries = name.split(".")
        if len(entries) > _DEEPEST:
            raise UserError(f"--options {shown(pair)}: more than {_DEEPEST} entries within one another")
        value = parse_value(text) if entries else _parse_as(text, key_types().get(name))
        for entry in reversed(entries):
            value = {entry: value}
        options = merged_overrides(options, {name: value})
    return options


def parse_value(text: str) -> Any:
    """The value that `text` stands for when no type is known."""
    text = text.strip()
    if text[:1] in ("[", "(", "{", "'", '"'):
        return _parse_literal(text)
    if "," in text:
        return [parse_value(part) for part in text.split(",") if part.strip()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _parse_as(text: str, kind: Any) -> Any:
    """The value for a key of type `kind` (None where the key is unknown)."""
    if kind is str:
        text = text.strip()
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if quoted else text
    value = parse_value(text)
    if get_origin(kind) is tuple and not isinstance(value, (list, tuple)):
        value = [] if value == "" else [value]
    if get_origin(kind) is tuple and get_args(kind)[0] is str:
        # None is a word here too: tracker=none.
        value = [v if isinstance(v, str) else "none" if v is None else str(v) for v in value]
    return value


def _parse_literal(text: str) -> Any:
    """A quoted text, a dict, or a list whose words need no quotes."""
    try:
        value = ast.literal_eval(text)
    except (RecursionError, MemoryError):
        raise UserError(f"--options value {shown(text)}: brackets are nested too deeply") from None
    except (ValueError, SyntaxError, TypeError):
        if _BRACKETS.get(text[0]) != text[-1]:
            raise UserError(
                f"--options value {shown(text)} is not a Python literal: check brackets and quotes"
            ) from None
        inner = text[1:-1]
        if any(bracket in inner for bracket in "[]()"):
            raise UserError(f"--options value {shown(text)}: quote the words inside nested lists") from None
        return [parse_value(part) for part in inner.split(",") if part.strip()]
    return list(value) if isinstance(value, tuple) else value
