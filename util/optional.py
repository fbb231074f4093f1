"""Packages that only some commands need."""

from __future__ import annotations

import importlib
from typing import Any

from util.errors import UserError, first_line


def require(package: str, use: str) -> Any:
    """Imports an optional package.

    use: names the requirements file that brings it, `requirements/<use>.txt`.
    Raises UserError with the pip line where it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.partition(".")[0]
        missing = getattr(error, "name", None) or top
        if missing.partition(".")[0] != top:
            raise UserError(f"{top} does not import ({first_line(error)})") from error
        raise UserError(f"{top} is not installed: pip install -r requirements/{use}.txt") from None
