"""`Config`: every key with its type, default and documentation, checked when it is made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from config import rules
from config.keys import SECTIONS, Keys
from config.official import IGNORED_KEYS, TRANSLATED_VALUES, UNSUPPORTED_KEYS
from config.values import check_bounds, convert, shown
from util.errors import UserError, nearest

_log = logging.getLogger(__name__)

_PLAIN = (bool, int, float, str, tuple, type(None))


class InvalidValueError(UserError):
    """A value that its key does not accept."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """All live keys, flat, with the values of the official `richsem_4scale` as defaults.

    Immutable, and always valid: a wrong type, a value out of bounds or a contradiction raises UserError when
    the object is made, also by `dataclasses.replace`. Lists become tuples, whole numbers become floats where
    a float is expected, and None becomes the empty value where that is the default.
    """

    def __post_init__(self) -> None:
        for name, declared in key_fields().items():
            try:
                value = _checked(name, getattr(self, name), declared)
            except UserError as error:
                raise InvalidValueError(name, str(error)) from None
            object.__setattr__(self, name, value)
        rules.check(self)

    @property
    def images_per_batch(self) -> int:
        """`batch_size` as a number: 1 for `auto`, where nobody has chosen yet."""
        return self.batch_size if isinstance(self.batch_size, int) else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint or JSON: tuples become lists. `from_dict` is the way back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: _plain_lists(v) for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Config:
        """A Config from key -> value; absent keys take their defaults.

        `origins` (key -> file or "--options") is put before the message of an error.
        Official keys without effect are accepted: ignored ones are logged in one line, unsupported ones must
        have their official value. Raises UserError for an unknown key, with the nearest right one.
        """
        origins = origins or {}

        def with_origin(name: str, error: UserError) -> UserError:
            return UserError(f"{origins[name]}: {error}") if origins.get(name) else error

        live = {name: value for name, value in values.items() if name in key_types()}
        for name in values.keys() - live.keys():
            try:
                _check_ineffective(name, values[name])
            except UserError as error:
                raise with_origin(name, error) from None
        ignored = sorted(IGNORED_KEYS.intersection(values))
        if ignored:
            _log.warning(
                "ignored %d keys that the official code never reads: %s", len(ignored), ", ".join(ignored)
            )
        try:
            return cls(**live)
        except InvalidValueError as error:
            raise with_origin(error.key, error) from None


def _plain_lists(value: Any) -> Any:
    """A copy in which tuples of a key, or of a mapping that it holds, are lists."""
    if isinstance(value, dict):
        return {key: _plain_lists(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else deepcopy(value)


@cache
def key_fields() -> dict[str, Field]:
    """Key -> its dataclass field, in the order of `SECTIONS`."""
    return {f.name: f for section in SECTIONS.values() for f in fields(section)}


@cache
def key_types() -> dict[str, Any]:
    """Key -> its type, for example `tuple[int, ...]`."""
    return get_type_hints(Config)


def known_keys() -> list[str]:
    """Every accepted key: live, unsupported, ignored."""
    return [*key_types(), *UNSUPPORTED_KEYS, *IGNORED_KEYS]


def _checked(name: str, value: Any, declared: Field) -> Any:
    """`value` in the type of key `name`, official values translated; raises UserError if it does not fit."""
    if value is None and declared.default in ("", ()):
        return declared.default
    value = convert(name, value, key_types()[name])
    check_bounds(name, value, declared)
    official, translated = TRANSLATED_VALUES.get(name, (None, None))
    return translated if value == official else value


def _check_ineffective(name: str, value: Any) -> None:
    """Accepts an ignored key, and an unsupported key at its official value; else raises UserError."""
    if name in IGNORED_KEYS:
        return
    if name not in UNSUPPORTED_KEYS:
        raise UserError(f"unknown key {shown(name)}.{nearest(name, known_keys())}")
    official, reason = UNSUPPORTED_KEYS[name]
    given = tuple(value) if isinstance(value, list) else value
    # A tensor, for one, compares to something else than True or False.
    if not isinstance(given, _PLAIN) or given != official:
        wanted = list(official) if isinstance(official, tuple) else official
        raise UserError(f"key {name!r} = {shown(value)}: only {wanted!r} is supported: {reason}")
