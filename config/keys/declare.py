"""How a key is declared: its default, one line of documentation, and what values are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any


def key(
    default: Any,
    doc: str,
    *,
    choices: tuple = (),
    minimum: float | None = None,
    maximum: float | None = None,
    ours: bool = False,
) -> Any:
    """A dataclass field with metadata `doc`, `choices`, `minimum`, `maximum` (both inclusive) and `ours`.

    For a tuple the bounds hold for each element. `ours` marks a key that the official release lacks.
    """
    metadata = {"doc": doc, "choices": choices, "minimum": minimum, "maximum": maximum, "ours": ours}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)
