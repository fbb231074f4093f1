"""Every kind of value that a key of a user's file may hold, and what it means where a kind is declared.

The meaning is stated here a second time, apart from the readers: a number is one also as text, an integer
also as `12.0`, a flag is 0 or 1 or true or false. What means nothing certain is REFUSED.
"""

import math
import re
from typing import Any

import msgspec

REFUSED = object()

NESTED: Any = []
for _ in range(50):
    NESTED = [NESTED]

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 7, -1, 2**31, 2**63, 2**70, 10**400),
    *(0.0, 1.0, 12.0, 1.5, -0.5, 1e300, math.inf, -math.inf, math.nan),
    *("", " ", "0", "1", "2", "7", "-1", "12.0", "1.5", "1e3", "true", "False", "no", "null", "nan", "x"),
    *("1_0", " 7", "7px", "0x10", "\u0663", "9" * 400, "x" * 5000, "\ud800", "a\nb", "r", "c"),
    *([], [1], [7, 8], ["1", "2"], [1, 2, 3, 4], ["1", "2.5", "3", "4"], [1, 2, 3, None], [1, 2, -3, -4]),
    *([math.nan, 0, 1, 1], [[1, 2, 3, 4]], [True], [1.5], [2**70], ["x"], [None], [[]], [{}], NESTED),
    *({}, {"a": 1}, {"x": [1], "y": None}),
)

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0+)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


def meaning(value: Any, kind: Any) -> Any:
    """What a JSON value means where msgspec's `type_info` declares a kind, or REFUSED."""
    if _half_of_a_character(value):
        return REFUSED
    return _meaning(
        value, kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    )


def _meaning(value: Any, kind: Any) -> Any:
    match kind:
        case msgspec.inspect.Metadata():
            return _meaning(value, kind.type)
        case msgspec.inspect.UnionType():
            if value is None or (
                isinstance(value, str) and value.lower() == "null" and not _takes_text(kind)
            ):
                return None if kind.includes_none else REFUSED
            (other,) = [t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType)]
            return _meaning(value, other)
        case msgspec.inspect.IntType():
            return _integer(value, kind)
        case msgspec.inspect.FloatType():
            return _float(value)
        case msgspec.inspect.BoolType():
            if isinstance(value, str):
                return _FLAGS.get(value.lower(), REFUSED)
            return bool(value) if type(value) is bool or (type(value) is int and value in (0, 1)) else REFUSED
        case msgspec.inspect.StrType():
            return value if isinstance(value, str) and len(value) >= (kind.min_length or 0) else REFUSED
        case msgspec.inspect.LiteralType():
            return value if isinstance(value, str) and value in kind.values else REFUSED
        case msgspec.inspect.VarTupleType():
            return _each(value, [kind.item_type] * len(value)) if isinstance(value, list) else REFUSED
        case msgspec.inspect.TupleType():
            fits = isinstance(value, list) and len(value) == len(kind.item_types)
            return _each(value, kind.item_types) if fits else REFUSED
    raise AssertionError(f"a kind without a meaning: {kind}")


def _each(values: list, kinds: Any) -> Any:
    found = tuple(_meaning(value, kind) for value, kind in zip(values, kinds, strict=True))
    return REFUSED if any(f is REFUSED for f in found) else found


def _takes_text(kind: Any) -> bool:
    return any(isinstance(t, msgspec.inspect.StrType) for t in kind.types)


def _integer(value: Any, kind: Any) -> Any:
    if isinstance(value, str):
        number = _float(value)
        whole = number is not REFUSED and math.isfinite(number) and number.is_integer()
        value = (int(value) if re.fullmatch("[+-]?[0-9]+", value) else int(number)) if whole else None
    elif type(value) is float:
        value = int(value) if math.isfinite(value) and value.is_integer() else None
    if type(value) is not int:
        return REFUSED
    low, high = (-(2**63) if kind.ge is None else kind.ge), (2**63 - 1 if kind.le is None else kind.le)
    return value if low <= value <= high and (kind.lt is None or value < kind.lt) else REFUSED


def _float(value: Any) -> Any:
    if isinstance(value, str):
        plain = _NUMBER.fullmatch(value) or value.lower() in ("nan", "inf", "infinity", "-inf")
        return float(value) if plain and math.isfinite(float(value)) | (not value[-1:].isdigit()) else REFUSED
    if type(value) is float:
        return value
    return float(value) if type(value) is int and abs(value) < 2**1000 else REFUSED


def _half_of_a_character(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_half_of_a_character, (*value, *value.values())))
    if isinstance(value, list):
        return any(map(_half_of_a_character, value))
    return isinstance(value, str) and "\ud800" in value
