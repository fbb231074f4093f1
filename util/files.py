"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from util.errors import UserError


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A name beside `path` to write to. When the block ends well it becomes `path`, which is replaced.

    The folder is made. durable: waits until the file is on the disk, for those that must survive a loss of
    power. Raises OSError where the file cannot be written.
    """
    # Process numbers repeat among machines and containers that share a folder.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[TextIO]:
    """An open UTF-8 text file that becomes `path` when the block ends well; else `path` stays as it was.

    durable: as in `atomic_path`. Raises UserError where the file cannot be written.
    """
    path = Path(path)
    try:
        with (
            atomic_path(path, durable=durable) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


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
