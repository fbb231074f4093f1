"""JSON files of users: missing, half-written or something else, each is one clear line."""

import json
from pathlib import Path
from typing import Any

from util.errors import UserError, nearest


def load_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises UserError where there is no such file (naming the nearest one beside it), where it ends early, and
    where it is not JSON at all.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        kind = "is a folder, not a JSON file" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}.{nearest(path.name, siblings)}")
    try:
        with path.open("rb") as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        # A cut may fall inside a string, a number or a word such as `-Infinity`.
        if error.pos >= len(error.doc.rstrip()) - len("-Infinity") or error.msg.startswith("Unterminated"):
            fault = f"ends early (after {error.pos} characters): an unfinished download or copy?"
        else:
            fault = f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise UserError(f"{path}: {fault}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a JSON text file ({error.reason} at byte {error.start})") from None
