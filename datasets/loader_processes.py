"""The batches of a DataLoader's processes; one that dies or is stuck ends as one line, not as a wait."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from datasets.worker_limits import SHARED_MEMORY, free_shared_memory
from util.errors import UserError, first_line
from util.structures import Batch

# Seconds between looks at the processes while none gives a batch.
POLL = 5.0
# Seconds without any batch after which they count as stuck: longer than any batch takes, and shorter than
# ranks wait for one another, so that this line is the last one.
PATIENCE = 600.0
# Seconds that a process waits for room in shared memory, which the main process makes by taking batches.
ROOM_PATIENCE = 30.0
# Seconds that a process may take to end after its connection broke.
_ENDING = 2.0
_END = object()


class LoaderProcesses:
    """The processes of a DataLoader that has `timeout=POLL`.

    patience: seconds without any batch after which they count as stuck.
    """

    def __init__(self, loader: DataLoader, patience: float = PATIENCE) -> None:
        self._loader = loader
        self._patience = patience
        self._processes: list[Any] = []

    def batches(self) -> Iterator[Any]:
        """What the processes give, in order.

        Raises UserError where they cannot be started, one of them died, or nothing came for too long.
        """
        batches = self._start()
        while (batch := self._next(batches)) is not _END:
            yield batch

    def _start(self) -> Iterator[Any]:
        before = set(multiprocessing.active_children())
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        try:
            batches = iter(self._loader)
        except (RuntimeError, OSError, EOFError) as error:
            raise UserError(
                f"{self._loader.num_workers} loader processes cannot be started ({_reason(error)}): "
                "use fewer of them (--num_workers)"
            ) from None
        if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
            # torch's own raises RuntimeError wherever the main thread happens to be when a process dies.
            signal.signal(signal.SIGCHLD, handler)
        # Processes that persist were started by the first call.
        started = [p for p in multiprocessing.active_children() if p not in before]
        self._processes = started or self._processes
        return batches

    def _next(self, batches: Iterator[Any]) -> Any:
        """The next batch, or _END."""
        given_up = time.monotonic() + self._patience
        # A process that is stopped while it hands over a batch keeps `next` in a read without a time limit.
        watch = threading.Timer(self._patience + 2 * POLL, self._kill)
        watch.daemon = True
        watch.start()
        try:
            return self._waited_for(batches, given_up)
        finally:
            watch.cancel()
            # A thread that is still ending when Python exits aborts the process.
            watch.join()

    def _waited_for(self, batches: Iterator[Any], given_up: float) -> Any:
        while True:
            try:
                return next(batches, _END)
            except (RuntimeError, OSError, EOFError) as error:
                # The data set raised it in a process; it carries that traceback.
                if str(error).startswith("Caught "):
                    raise
                waited = str(error).startswith("DataLoader timed out")
                killed = time.monotonic() > given_up + 2 * POLL
                fault = self._stuck() if killed else self._death(0 if waited else _ENDING)
                if not fault and not waited:
                    fault = f"a batch did not arrive ({_reason(error)})"
                if not fault and time.monotonic() > given_up:
                    fault = self._stuck()
            if fault:
                self._kill()
                raise UserError(fault)

    def _death(self, patience: float) -> str:
        """What became of a process that ended, or does so within some seconds; "" where all of them run."""
        given_up = time.monotonic() + patience
        while True:
            ended = next((p for p in self._processes if p.exitcode is not None), None)
            if ended is not None:
                return f"loader process {ended.pid}, one of {len(self._processes)}, {_end_of(ended.exitcode)}"
            if time.monotonic() >= given_up:
                return ""
            time.sleep(0.1)

    def _kill(self) -> None:
        # At its exit Python waits for its processes, and would wait without end for one that is stuck.
        for process in self._processes:
            process.kill()

    def _stuck(self) -> str:
        free = free_shared_memory()
        shared = "" if free is None else f" {SHARED_MEMORY} has {free / 1e6:.0f} MB free."
        return (
            f"no batch for {self._patience:.0f} s from {len(self._processes)} loader processes, though they "
            f"run: does the disk or network folder of the images answer?{shared}"
        )


def _end_of(exitcode: int) -> str:
    """What an exit status means, and what to do."""
    if exitcode >= 0:
        return f"ended with status {exitcode}; what it printed is above"
    name = signal.Signals(-exitcode).name if -exitcode in set(signal.Signals) else f"signal {-exitcode}"
    if name == "SIGKILL":
        return (
            "was killed by SIGKILL: the system kills so when it runs out of memory (see dmesg); fewer "
            "processes (--num_workers) or a smaller batch_size need less"
        )
    if name == "SIGBUS":
        return (
            f"was killed by SIGBUS: {SHARED_MEMORY} is full, or a file of the data became shorter while it "
            "was read"
        )
    return f"was killed by {name}"


def _reason(error: BaseException) -> str:
    text = str(error)
    if "Too many open files" in text or "ancdata" in text:
        return "too many open files; raise the limit, ulimit -n"
    return first_line(error)


def in_shared_memory(batch: Batch) -> Batch:
    """In a loader process: the batch in shared memory, where the queue to the main process wants it.

    The queue would put it there too, but drop a batch for which there is no room. Elsewhere the batch as
    it is. Raises UserError where there is no room for ROOM_PATIENCE seconds.
    """
    if get_worker_info() is None:
        return batch
    given_up = time.monotonic() + ROOM_PATIENCE
    while True:
        try:
            images, targets = batch
            return images.share_memory(), targets.share_memory()
        except (RuntimeError, OSError) as error:
            if time.monotonic() > given_up:
                free = (free_shared_memory() or 0) / 1e6
                raise UserError(
                    f"{SHARED_MEMORY} has no room for a batch ({free:.3g} MB free; {_reason(error)}): use "
                    "fewer loader processes (--num_workers), or give the machine more (docker run --shm-size)"
                ) from None
            time.sleep(0.2)
