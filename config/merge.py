"""How later values meet earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from addict import Dict

DELETE = "_delete_"


def merged(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """`earlier` overwritten by `later`; neither is changed.

    Two dicts merge key by key, as in the official release; a later dict with `_delete_=True` replaces the
    earlier one.
    """
    result = Dict(earlier)
    for name, value in later.items():
        if isinstance(value, Mapping) and value.get(DELETE):
            result.pop(name, None)
        result.update({name: value})
        if isinstance(value, Mapping):
            result[name].pop(DELETE, None)
    return result.to_dict()
