"""How many loader processes the machine can hold: their batches in shared memory, their open files.

Finished batches wait in /dev/shm, whatever torch's sharing strategy is. Where it is full, a batch never
arrives. Reading in the main process needs neither, and gives the same batches, so fewer processes are always
possible.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from util.logging import get_logger
from util.pixels import Size, padded_size

try:
    import resource
except ImportError:  # not POSIX: there is no such limit
    resource = None  # type: ignore[assignment]

SHARED_MEMORY = Path("/dev/shm")
# Batches that a process reads ahead: torch's default.
PREFETCHED = 2
# The rest of shared memory is left to others, such as NCCL.
_USABLE = 0.9
# Files that the main process opens for each loader process, and for each batch that waits: one a tensor.
_FILES_PER_PROCESS, _FILES_PER_BATCH = 6, 6
# Files that the rest of a run opens: libraries, logs, sockets between ranks.
_FILES_OF_RUN = 100


def free_shared_memory() -> int | None:
    """Bytes that are free in /dev/shm; None where the system has no such folder."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize


def batch_bytes(canvas: Size, batch_size: int, divisor: int = 1) -> int:
    """Bytes of a batch as the loader gives it: 3 of pixels and 1 of the mask.

    canvas: (height, width), which padding rounds up to multiples of `divisor`.
    """
    height, width = padded_size([canvas], divisor)
    return 4 * batch_size * height * width


def shared_memory_needed(workers: int, largest: int, ranks: int = 1) -> int:
    """Bytes of the batches that wait and of the one in use, on a machine with so many ranks."""
    return ranks * (workers * PREFETCHED + 1) * largest if workers else 0


def affordable_workers(asked: int, largest: int, ranks: int = 1) -> int:
    """`asked`, or as many loader processes as the machine can hold, with a warning that says what is short.

    largest: bytes of the largest batch.  ranks: on this machine, each with its own loader processes.
    """
    workers = asked
    free = free_shared_memory()
    if free is not None:
        while shared_memory_needed(workers, largest, ranks) > free * _USABLE:
            workers -= 1
        if workers < asked:
            short = shared_memory_line(asked, largest, free, ranks)
            get_logger().warning("%s; using %d instead", short, workers)
    allowed = min(workers, _workers_by_open_files())
    if allowed < workers:
        get_logger().warning(
            "a process may open %d files (ulimit -n): using %d loader processes instead of %d",
            _open_files_limit(), allowed, workers,
        )  # fmt: skip
    return allowed


def shared_memory_line(asked: int, largest: int, free: int, ranks: int = 1) -> str:
    """What is short, and the remedy."""
    needed = shared_memory_needed(asked, largest, ranks)
    return (
        f"{SHARED_MEMORY} has {_megabytes(free)} MB free, and {asked} loader processes"
        f"{f' on each of {ranks} ranks' if ranks > 1 else ''} may need {_megabytes(needed)} MB "
        f"(batches of up to {_megabytes(largest)} MB): give the machine more (docker run --shm-size)"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g}" if count < 1e8 else f"{count / 1e6:.0f}"


def _workers_by_open_files() -> int:
    """As many loader processes as the limit of open files allows; it is raised as far as possible first."""
    _raise_open_files_limit()
    each = _FILES_PER_PROCESS + PREFETCHED * _FILES_PER_BATCH
    return max(0, (_open_files_limit() - _FILES_OF_RUN) // each)


def _open_files_limit() -> int:
    if resource is None:
        return 2**20
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if limit == resource.RLIM_INFINITY else limit


def _raise_open_files_limit(enough: int = 4096) -> None:
    """A soft limit below `enough` is raised towards it: the usual 1024 is short with many archives."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
