"""Names and sizes of the images of one class, kept in a part file, so that no class is scanned twice."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from datasets.images.class_sources import ClassSource
from datasets.images.header import DamagedError
from util.errors import UserError
from util.files import atomic_write


class Image(NamedTuple):
    """name: relative to the image folder.  height, width: pixels."""

    name: str
    height: int
    width: int


class Failure(NamedTuple):
    """An image, or a tar as a whole, that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Task:
    """source: what to scan.  part: where the result is kept.  verify: decode every image."""

    source: ClassSource
    part: Path
    verify: bool

    def identity(self) -> dict:
        """Plain data that is equal only for the same scan of the same content."""
        source = self.source
        status = source.path.stat()
        return {
            "path": str(source.path.resolve()),
            "inside": source.prefix,
            "bytes": status.st_size if source.path.is_file() else 0,
            "changed": status.st_mtime_ns,
            "verify": self.verify,
        }


@dataclass(frozen=True)
class Part:
    """The result of a task."""

    images: list[Image]
    failures: list[Failure]


def read_part(task: Task) -> Part | None:
    """The kept result; None if there is none, or if its source has changed."""
    try:
        content = json.loads(task.part.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if content["identity"] != task.identity():
        return None
    return Part([Image(*p) for p in content["images"]], [Failure(*f) for f in content["failures"]])


def finished_part(task: Task) -> Part:
    """The kept result of a finished task. Raises UserError if its source has changed."""
    part = read_part(task)
    if part is None:
        raise UserError(f"{task.source.path}: changed while it was scanned; run the same command again")
    return part


def scan(task: Task) -> tuple[int, int]:
    """Inspects every image and keeps the result. Returns the numbers of images and of failures."""
    identity, images, failures = task.identity(), [], []
    try:
        opened = task.source.open()
        files = opened.files()
    except (UserError, OSError) as error:  # one unreadable tar or folder must not stop the others
        files = []
        failures.append(Failure(task.source.path.name, str(error)))
    else:
        if opened.tar is not None and opened.tar.fault:
            failures.append(Failure(task.source.path.name, opened.tar.fault))
    for file in files:
        try:
            images.append(Image(file.name, *opened.inspect(file, task.verify).stored))
        except DamagedError as error:
            failures.append(Failure(file.name, str(error)))
        except OSError as error:
            failures.append(Failure(file.name, f"cannot be read ({error.strerror})"))
    # A thousand fsyncs would take minutes; a lost part is scanned again.
    with atomic_write(task.part, durable=False) as part:
        json.dump({"identity": identity, "images": images, "failures": failures}, part)
    return len(images), len(failures)


def scan_all(tasks: Sequence[Task], workers: int) -> Iterator[tuple[int, int]]:
    """`scan` of each task in `workers` processes; results come as they are finished."""
    if workers == 1 or len(tasks) < 2:
        yield from map(scan, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(scan, task) for task in tasks]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool:
            raise UserError(
                "a process died (out of memory?); finished classes are kept: run the same command again"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
