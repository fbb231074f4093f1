"""Annotation files as memory-mapped columns, built once and shared by later starts and all processes.

The cache folder holds `DIGEST-vVERSION.safetensors` for each content that was read, and for each path a note
of the content it had at a stamp (size, times of change, inode). A file with the noted stamp is not hashed
again; any other is, so what counts is the content. A stamp is noted only if the file had not changed for a
while: an edit within the same tick of the clock leaves no trace in it.

An entry carries a CRC-32 of all its bytes, which every start compares: 40 to 70 ms for LVIS train; a flipped
bit would be trained on. It reads the file for that instead of touching the mapped columns, so that a process
holds no page that it does not use. The entries used last are kept, up to MOST_ENTRIES.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.numpy import save_file

from datasets.annotations.categories import Category
from datasets.annotations.json_errors import require_file
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.table import AnnotationTable
from datasets.columns import PackedStrings, Ragged
from util.errors import UserError, first_line
from util.files import atomic_path, cache_directory
from util.logging import get_logger

# Increase it whenever the form or the meaning of the columns changes.
VERSION = 4
# Smaller files are read each time, in less than a tenth of a second.
SMALLEST = 4 * 2**20
# Three or four belong to a dataset; LVIS train is the largest in use, with 81 MB.
MOST_ENTRIES = 32
# Seconds after which what a killed process left counts as left.
_OLD = 24 * 3600.0
# Coarsest clock of a file system in use, in seconds.
_CLOCK_TICK = 2.0
# Seconds after which waiting for another process is worth a line.
_PATIENCE = 10.0
# What precedes the checksum in the head of an entry, which is JSON.
_MARK = b'"crc32":"'


def open_annotations(path: str | Path, smallest: int = SMALLEST) -> AnnotationTable:
    """`read_annotations`, cached for files of `smallest` bytes or more; see `util.files` for the folder.

    If that folder cannot be used, the columns stay in memory, with a warning.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size < smallest:
        return read_annotations(path)
    try:
        return _Cache(cache_directory("annotations")).open(path)
    except OSError as error:
        get_logger().warning("%s: cannot cache its columns (%s); keeping them in memory", path, error)
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

    def is_older_than_clock_tick(self, now: float) -> bool:
        """Whether a change after `now` would show."""
        return max(self.modified_ns, self.changed_ns) / 1e9 < now - _CLOCK_TICK


class _Cache:
    """The cache folder. `open` raises OSError if it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, path: Path) -> AnnotationTable:
        """The table of an annotation file; its warnings go to the log."""
        now, stamp = time.time(), _Stamp.of(path)
        note = self.folder / f"{hashlib.sha256(bytes(path.resolve())).hexdigest()[:32]}.json"
        digest = _cached_digest(note, stamp)
        table = self._load(digest, path.name) if digest else None
        if table is not None:
            return table
        digest = digest_of(path)
        # An empty table is falsy.
        table = self._load(digest, path.name)
        if table is None:
            table = self._build(path, digest, stamp)
        if stamp.is_older_than_clock_tick(now):
            _write_note(note, path, stamp, digest)
        return table

    def _entry(self, digest: str) -> Path:
        return self.folder / f"{digest}-v{VERSION}.safetensors"

    def _load(self, digest: str, name: str) -> AnnotationTable | None:
        entry = self._entry(digest)
        if not entry.is_file():
            return None
        try:
            table = load_table(entry, name)
        except FileNotFoundError:  # another process has removed it
            return None
        except Exception as error:  # damage can make safetensors and torch raise anything
            get_logger().warning("%s: is damaged (%s); rebuilding it", entry, first_line(error))
            return None
        # It was used now; somebody else's cannot be touched.
        with suppress(OSError):
            entry.touch()
        table.report_warnings()
        return table

    def _build(self, path: Path, digest: str, stamp: _Stamp) -> AnnotationTable:
        """Reads the file, or waits for another process that is reading it."""
        entry = self._entry(digest)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _file_lock(entry.with_suffix(".lock")):
            if (table := self._load(digest, path.name)) is not None:
                return table
            # Left by processes that were killed here.
            for left in self.folder.glob(f".{entry.name}.*.tmp"):
                left.unlink(missing_ok=True)
            get_logger().info("%s: reading it, and caching its columns as %s", path, entry)
            started = time.time()
            table = read_annotations(path)
            # Within a tick of the clock the stamp would not show an edit.
            changed = _Stamp.of(path) != stamp or (
                not stamp.is_older_than_clock_tick(started) and digest_of(path) != digest
            )
            if changed:
                raise UserError(f"{path}: changed while it was being read; start again when it is complete")
            try:
                save_table(table, entry)
                return load_table(entry, path.name)
            except Exception as error:  # no room, or a disk that does not give back what it was given
                get_logger().warning(
                    "%s: cannot be kept (%s); %s stays in memory", entry, first_line(error), path.name
                )
                return table
            finally:
                self._remove_old(entry)

    def _remove_old(self, newest: Path) -> None:
        """Entries beyond MOST_ENTRIES, the notes that name them, and what killed processes left."""
        with suppress(OSError):
            entries = sorted(self.folder.glob("*.safetensors"), key=_last_use, reverse=True)
            for entry in entries[MOST_ENTRIES:]:
                if entry != newest:
                    entry.unlink(missing_ok=True)
            left = {entry.name.partition("-")[0] for entry in self.folder.glob("*.safetensors")}
            for note in self.folder.glob("*.json"):
                if not _names_one_of(note, left):
                    note.unlink(missing_ok=True)
            for rest in (*self.folder.glob(".*.tmp"), *self.folder.glob("*.lock")):
                if _last_use(rest) < time.time() - _OLD:
                    rest.unlink(missing_ok=True)


def _cached_digest(note: Path, stamp: _Stamp) -> str | None:
    """The digest of the content at this stamp, if it was noted."""
    try:
        noted = _noted(note)
    except ValueError as error:
        get_logger().warning("%s: is damaged (%s); rebuilding it", note, error)
        return None
    return noted["digest"] if noted and noted["stamp"] == list(stamp) else None


def _noted(note: Path) -> dict[str, Any]:
    """What a note says; empty where there is none. Raises ValueError for a damaged one."""
    try:
        noted = json.loads(note.read_bytes())
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not (isinstance(noted, dict) and isinstance(noted.get("stamp"), list)):
        raise ValueError("no stamp")
    # It becomes a part of a file's name.
    if not re.fullmatch("[0-9a-f]{64}", str(noted.get("digest"))):
        raise ValueError("no digest")
    return noted


def _names_one_of(note: Path, digests: Collection[str]) -> bool:
    try:
        return _noted(note).get("digest") in digests
    except ValueError:
        return False


def _last_use(file: Path) -> float:
    """Seconds; 0 for a file that is gone."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _write_note(note: Path, path: Path, stamp: _Stamp, digest: str) -> None:
    try:
        with atomic_path(note, durable=False) as temporary:
            temporary.write_text(json.dumps({"path": str(path), "stamp": stamp, "digest": digest}))
    except OSError as error:
        get_logger().warning(
            "%s: cannot be written (%s); the next start will hash %s again", note, error, path.name
        )


@contextmanager
def _file_lock(lock: Path) -> Iterator[None]:
    """One process at a time. It only saves work: files are written atomically in any case."""
    held = FileLock(lock)
    try:
        try:
            held.acquire(timeout=_PATIENCE)
        except Timeout:
            get_logger().warning("%s: another process is reading this file; waiting for it", lock)
            held.acquire()
    except (OSError, RuntimeError) as error:
        get_logger().warning("%s: cannot be locked (%s); processes may read the same file twice", lock, error)
        yield
        return
    try:
        yield
    finally:
        # Who waits for it goes on; who comes later makes a new one.
        with suppress(OSError):
            lock.unlink()
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


def save_table(table: AnnotationTable, entry: Path) -> None:
    """Writes a table as one file, atomically. Raises OSError."""
    columns, about = {}, {}
    for field in fields(table):
        value = getattr(table, field.name)
        if isinstance(value, np.ndarray):
            columns[field.name] = value
        elif isinstance(value, Ragged | PackedStrings):
            columns |= {f"{field.name}.{part.name}": getattr(value, part.name) for part in fields(value)}
        else:
            about[field.name] = value
    about["categories"] = [asdict(category) for category in table.categories]
    columns = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    with atomic_path(entry) as temporary:
        save_file(columns, temporary, {"about": json.dumps(about), "crc32": "0" * 8})
        place, _, checksum = _checksum(temporary)
        with temporary.open("rb+") as file:
            file.seek(place)
            file.write(checksum)
        # Who may read the cache folder may read this.
        temporary.chmod(0o644)


def _checksum(entry: Path) -> tuple[int, bytes, bytes]:
    """Where an entry's checksum stands, what it is there, and what it is of the other bytes.

    Raises OSError, and ValueError for a file without one.
    """
    with entry.open("rb") as file:
        length = file.read(8)
        head = file.read(min(int.from_bytes(length, "little"), entry.stat().st_size))
        place = head.index(_MARK) + len(_MARK)
        found = zlib.crc32(length + head[:place] + b"0" * 8 + head[place + 8 :])
        while block := file.read(2**22):
            found = zlib.crc32(block, found)
    return len(length) + place, head[place : place + 8], b"%08x" % found


def load_table(entry: Path, name: str) -> AnnotationTable:
    """A table whose columns are read-only views of the file, under the given name.

    Raises OSError, ValueError for a file that is damaged, and for one that holds something else whatever
    safetensors raises, KeyError and TypeError.
    """
    inode = entry.stat().st_ino
    _, stated, found = _checksum(entry)
    if stated != found:
        raise ValueError("wrong checksum")
    with safe_open(entry, "pt") as file:
        about = json.loads(file.metadata()["about"])
        columns = {key: file.get_tensor(key).numpy() for key in file.keys()}  # noqa: SIM118
    if entry.stat().st_ino != inode:
        raise ValueError("was replaced while it was read")
    for column in columns.values():
        column.flags.writeable = False
    lists = ("negatives", "not_exhaustive", "positives", "judged")
    nested: dict[str, Any] = {
        key: Ragged(columns.pop(f"{key}.values"), columns.pop(f"{key}.offsets")) for key in lists
    }
    names = PackedStrings(columns.pop("file_names.data"), columns.pop("file_names.offsets"))
    categories = [Category(**{**c, "synonyms": tuple(c["synonyms"])}) for c in about.pop("categories")]
    about |= {"name": name, "categories": tuple(categories), "warnings": tuple(about["warnings"])}
    return AnnotationTable(**columns, **nested, **about, file_names=names)
