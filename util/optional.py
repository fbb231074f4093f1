"""Packages that only some commands need."""

from __future__ import annotations

import importlib
from typing import Any

from util.errors import UserError, first_line


def require(package: str, use: str) -> Any:
    """Imports an optional package, or a module inside one (`tracker.sdk`).

    use: names the requirements file that brings it, `requirements/<use>.txt`.
    Raises UserError: with the pip line where the package is not installed, with the reason where it is but
    does not import.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name == top:
            raise UserError(f"{top} is not installed: pip install -r requirements/{use}.txt") from None
        raise UserError(f"{package} does not import ({first_line(error)})") from error
    except (ImportError, OSError) as error:  # a shared library that is missing or of another version
        raise UserError(f"{package} does not import ({first_line(error)})") from error
