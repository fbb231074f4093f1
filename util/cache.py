"""The folder for what can be made again."""

import os
from pathlib import Path


def cache_directory(kind: str = "") -> Path:
    """`$RICHSEM_CACHE`, else richsem/ below `$XDG_CACHE_HOME` or ~/.cache; in it the folder of one kind.

    It need not exist. Raises OSError where there is no home folder.
    """
    if os.environ.get("RICHSEM_CACHE"):
        return Path(os.environ["RICHSEM_CACHE"]).expanduser() / kind
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise OSError("there is no home folder for a cache: set RICHSEM_CACHE to a folder") from None
    return home / "richsem" / kind
