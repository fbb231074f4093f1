"""Files that appear whole or not at all, and the folder of caches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from util.errors import UserError


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary name beside `path`; when the block succeeds, that file replaces `path`.

    Creates the folder. durable: waits until file and name are on the disk, for files that must survive a
    power failure. Raises OSError where the file cannot be written.
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
        if durable:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_copy(source: Path, path: Path, *, link: bool = False) -> None:
    """Makes `path` a copy of the file `source`, in place of what was there. Raises OSError.

    link: another name of the same file where the file system can do that, for a source that is about to be
    replaced: a change of one in place would change both.
    """
    with atomic_path(path) as temporary:
        try:
            if not link:
                raise OSError
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


@contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[TextIO]:
    """Yields an open UTF-8 text file; when the block succeeds, it replaces `path`.

    durable: as in `atomic_path`. Raises UserError where the file cannot be written.
    """
    path = Path(path)
    with (
        writing(path),
        atomic_path(path, durable=durable) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises UserError where what the block writes to `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def _sync_folder(folder: Path) -> None:
    """Writes the folder's names to the disk; only POSIX lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def path_exists(path: Path) -> bool:
    """False also for what can be no path: too long, or with a zero byte."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def cache_directory(kind: str = "") -> Path:
    """The folder `kind` in `$RICHSEM_CACHE`, or in richsem/ below `$XDG_CACHE_HOME` or ~/.cache.

    It may not exist yet. Raises OSError where there is no home folder.
    """
    if os.environ.get("RICHSEM_CACHE"):
        return Path(os.environ["RICHSEM_CACHE"]).expanduser() / kind
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise OSError("there is no home folder for a cache: set RICHSEM_CACHE to a folder") from None
    return home / "richsem" / kind
