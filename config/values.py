"""How a key is declared, and values against the type and bounds that it declares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field
from reprlib import Repr
from types import UnionType
from typing import Any, get_args, get_origin

from util.errors import UserError, nearest

# Numbers beyond are none that PyTorch could take, and long ones cannot even be printed.
_LARGEST = 2**62
# Containers within containers.
_DEEPEST = 20


def shown(value: Any) -> str:
    """A value for a message: one line, cut where it is long or deep."""
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "(a number beyond 64 bits)"
    return " ".join(_SHORT.repr(value).split())


class _Short(Repr):
    def repr_int(self, x: int, level: int) -> str:
        return shown(x) if abs(x) > _LARGEST else repr(x)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def config_field(
    default: Any,
    doc: str,
    *,
    choices: tuple = (),
    minimum: float | None = None,
    maximum: float | None = None,
    official: bool = True,
) -> Any:
    """A dataclass field whose metadata holds everything but the default.

    doc: one line for docs/configuration.md. minimum, maximum: inclusive; for a tuple they hold for each
    element. official: False for a key that the official release lacks.
    """
    metadata = {"doc": doc, "choices": choices, "minimum": minimum, "maximum": maximum, "official": official}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def describe(kind: Any) -> str:
    """A type in words: `tuple[int, ...]` -> "list of int", `tuple[int, int]` -> "list of 2 int"."""
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if items[-1] is Ellipsis:
            return f"list of {items[0].__name__}"
        return f"list of {len(items)} {items[0].__name__}"
    if isinstance(kind, UnionType):
        return " or ".join(map(describe, get_args(kind)))
    if get_origin(kind) is dict:
        key, item = get_args(kind)
        return f"dict of {key.__name__} to {describe(item)}"
    return kind.__name__


def convert(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`: a whole number may stand for a float, a list for a tuple; nothing else is bent.

    Raises UserError that names the key, the value and the expected type.
    """
    converted = _converted(value, kind)
    if converted is None:
        raise UserError(
            f"key {name!r} = {shown(value)}: expected {describe(kind)}, got {type(value).__name__}"
        )
    return converted


def check_bounds(name: str, value: Any, declared: Field) -> None:
    """Raises UserError when `value` or one of its elements is not among the choices or within the bounds."""
    choices, low, high = (declared.metadata[k] for k in ("choices", "minimum", "maximum"))
    for number in value if isinstance(value, tuple) else (value,):
        if choices and number not in choices:
            listed = ", ".join(map(repr, choices))
            raise UserError(
                f"key {name!r} = {shown(value)}: choose one of {listed}.{nearest(number, choices)}"
            )
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"key {name!r} = {shown(value)}: must be a finite number")
        if isinstance(number, str):
            continue
        if low is not None and number < low:
            raise UserError(f"key {name!r} = {shown(value)}: must not be below {low}")
        if high is not None and number > high:
            raise UserError(f"key {name!r} = {shown(value)}: must not be above {high}")


def _converted(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or None where it does not fit (no key takes None)."""
    if get_origin(kind) is tuple:
        return _converted_tuple(value, get_args(kind))
    if isinstance(kind, UnionType):
        fitting = (_converted(value, k) for k in get_args(kind))
        return next((v for v in fitting if v is not None), None)
    if get_origin(kind) is dict:
        return _converted_dict(value, *get_args(kind))
    if kind is dict:
        return _plain(value) if isinstance(value, Mapping) and _is_plain(value) else None
    if isinstance(value, bool) and kind is not bool:
        return None
    if isinstance(value, int) and abs(value) > _LARGEST:
        return None
    if kind is float and isinstance(value, int):
        return float(value)
    return value if isinstance(value, kind) else None


def _converted_tuple(value: Any, items: tuple) -> tuple | None:
    if not isinstance(value, (list, tuple)):
        return None
    kinds = [items[0]] * len(value) if items[-1] is Ellipsis else items
    if len(kinds) != len(value):
        return None
    converted = tuple(_converted(v, kind) for v, kind in zip(value, kinds, strict=True))
    return None if any(v is None for v in converted) else converted


def _converted_dict(value: Any, key_kind: Any, kind: Any) -> dict | None:
    if not isinstance(value, Mapping) or not all(isinstance(key, key_kind) for key in value):
        return None
    converted = {key: _converted(item, kind) for key, item in value.items()}
    return None if any(item is None for item in converted.values()) else converted


def _is_plain(value: Any, deepest: int = _DEEPEST) -> bool:
    """Whether a checkpoint can hold it: nested containers of numbers, strings, booleans and None."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return False
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return deepest > 0 and all(_is_plain(part, deepest - 1) for part in value)
    if isinstance(value, int):
        return abs(value) <= _LARGEST
    return value is None or isinstance(value, (float, str))


def _plain(value: Any) -> Any:
    """A copy that shares nothing mutable, with plain dicts."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value
