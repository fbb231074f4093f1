"""Annotation files as memory-mapped columns, made once: a later start, and every process, shares their pages.

In the cache folder lie, for each content that was read, `DIGEST-vVERSION.safetensors`, and for each path a
note that says which content it held at which stamp (size, times of change, inode). A file whose stamp is the
noted one is not read again; any other is hashed, so what counts is the content. A stamp is noted only when
the file had been left alone for a while: edits at the same tick of the clock leave no trace in it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from datasets.annotations.categories import Category
from datasets.annotations.json_errors import require_file
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.table import AnnotationTable
from datasets.columns import PackedStrings, Ragged
from util.errors import UserError
from util.files import atomic_path, cache_directory
from util.logging import get_logger

# Of the columns' form and meaning: a change in either needs a new number.
VERSION = 2
# Smaller files are read each time, in less than a tenth of a second.
SMALLEST = 4 * 2**20
# Coarsest clock of a file system in use, in seconds.
_CLOCK_TICK = 2.0
# Seconds after which waiting for another process is worth a line.
_PATIENCE = 10.0


def open_annotations(path: str | Path, smallest: int = SMALLEST) -> AnnotationTable:
    """`read_annotations`, kept in the cache folder from `smallest` bytes on; see `util.files`.

    Where that folder cannot be used, the file is read into memory, with a line that says so.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size < smallest:
        return read_annotations(path)
    try:
        return _Cache(cache_directory("annotations")).open(path)
    except OSError as error:
        get_logger().warning("%s: its columns cannot be kept (%s); they are made in memory", path, error)
        return read_annotations(path)


class _Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Stamp:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def settled(self, now: float) -> bool:
        """Whether a change after `now` would show."""
        return max(self.modified_ns, self.changed_ns) / 1e9 < now - _CLOCK_TICK


class _Cache:
    """The folder. `open` raises OSError where it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, path: Path) -> AnnotationTable:
        """The store of an annotation file, and what is odd about it in the log."""
        now, stamp = time.time(), _Stamp.of(path)
        note = self.folder / f"{hashlib.sha256(bytes(path.resolve())).hexdigest()[:32]}.json"
        digest = _noted(note, stamp)
        store = self._load(digest, path.name) if digest else None
        if store is not None:
            return store
        digest = digest_of(path)
        # A store can be empty, which is falsy.
        store = self._load(digest, path.name)
        if store is None:
            store = self._build(path, digest, stamp)
        if stamp.settled(now):
            _write_note(note, path, stamp, digest)
        return store

    def _entry(self, digest: str) -> Path:
        return self.folder / f"{digest}-v{VERSION}.safetensors"

    def _load(self, digest: str, name: str) -> AnnotationTable | None:
        entry = self._entry(digest)
        if not entry.is_file():
            return None
        try:
            store = load_store(entry, name)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            get_logger().warning("%s: is damaged (%s) and is made anew", entry, error)
            return None
        store.report_warnings()
        return store

    def _build(self, path: Path, digest: str, stamp: _Stamp) -> AnnotationTable:
        """Reads the file, unless another process does; then waits for that."""
        entry = self._entry(digest)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(entry.with_suffix(".lock")):
            if (store := self._load(digest, path.name)) is not None:
                return store
            # Of processes that were killed here.
            for left in self.folder.glob(f".{entry.name}.*.tmp"):
                left.unlink(missing_ok=True)
            get_logger().info("%s: its columns are made, and kept as %s", path, entry)
            started = time.time()
            store = read_annotations(path)
            # Within a tick of the clock the stamp would not show an edit.
            changed = _Stamp.of(path) != stamp or (not stamp.settled(started) and digest_of(path) != digest)
            if changed:
                raise UserError(f"{path}: was changed while it was read; start again when it is done")
            try:
                save_store(store, entry)
            except OSError as error:
                get_logger().warning(
                    "%s: cannot be written (%s); %s stays in memory", entry, error, path.name
                )
                return store
        return load_store(entry, path.name)


def _noted(note: Path, stamp: _Stamp) -> str | None:
    """The digest of what the file held at this stamp, if that is known."""
    try:
        noted = json.loads(note.read_text())
        return noted["digest"] if noted["stamp"] == list(stamp) else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        get_logger().warning("%s: is damaged (%s) and is made anew", note, error)
        return None


def _write_note(note: Path, path: Path, stamp: _Stamp, digest: str) -> None:
    try:
        with atomic_path(note, durable=False) as temporary:
            temporary.write_text(json.dumps({"path": str(path), "stamp": stamp, "digest": digest}))
    except OSError as error:
        get_logger().warning(
            "%s: cannot be written (%s); the next start hashes %s again", note, error, path.name
        )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time. It saves work only: files get their place whole, whoever writes them."""
    held = FileLock(lock)
    try:
        try:
            held.acquire(timeout=_PATIENCE)
        except Timeout:
            get_logger().warning("%s: another process makes these columns; waiting for it", lock)
            held.acquire()
    except (OSError, RuntimeError) as error:
        get_logger().warning("%s: cannot be locked (%s); processes may do the same work", lock, error)
        yield
        return
    try:
        yield
    finally:
        held.release()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, some hundred megabytes a second or more. Raises UserError."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def save_store(store: AnnotationTable, entry: Path) -> None:
    """Writes a store as one file, whole or not at all. Raises OSError."""
    columns, about = {}, {}
    for field in fields(store):
        value = getattr(store, field.name)
        if isinstance(value, np.ndarray):
            columns[field.name] = value
        elif isinstance(value, Ragged | PackedStrings):
            columns |= {f"{field.name}.{part.name}": getattr(value, part.name) for part in fields(value)}
        else:
            about[field.name] = value
    about["categories"] = [asdict(category) for category in store.categories]
    columns = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    with atomic_path(entry) as temporary:
        save_file(columns, temporary, {"about": json.dumps(about)})
        # Who may read the cache folder may read this.
        temporary.chmod(0o644)


def load_store(entry: Path, name: str) -> AnnotationTable:
    """A store whose columns are read-only views of the file, under the given name.

    Raises SafetensorError for a file that is cut or no such file, KeyError, ValueError and TypeError for one
    that holds something else.
    """
    with safe_open(entry, "pt") as file:
        about = json.loads(file.metadata()["about"])
        columns = {key: file.get_tensor(key).numpy() for key in file.keys()}  # noqa: SIM118
    for column in columns.values():
        column.flags.writeable = False
    lists = ("negatives", "not_exhaustive", "positives")
    nested = {key: Ragged(columns.pop(f"{key}.values"), columns.pop(f"{key}.offsets")) for key in lists}
    names = PackedStrings(columns.pop("file_names.data"), columns.pop("file_names.offsets"))
    categories = [Category(**{**c, "synonyms": tuple(c["synonyms"])}) for c in about.pop("categories")]
    about |= {"name": name, "categories": tuple(categories), "warnings": tuple(about["warnings"])}
    return AnnotationTable(**columns, **nested, **about, file_names=names)
