"""A run stops in time: signals and a time limit become a checkpoint at the next optimizer step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from util import distributed
from util.signals import STATUS, SignalStop, stopping_signals

# A Ctrl-C that comes again within so many seconds is the same one: to the process, and to its group.
_SAME = 0.5


class Stopped(Exception):  # noqa: N818 - a run that stops when asked to has not failed
    """The run ends here; all ranks raise it together.  status: the exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def stop_if(asked: int) -> None:
    """Raises Stopped where `Stopping.agree` says so: asked is 1 + the exit status, 0 for nothing."""
    if asked:
        raise Stopped(asked - 1)


class Stopping:
    """Handles SIGTERM, SIGINT (Ctrl-C), SIGHUP and SIGUSR1 within `with`, and watches a time limit.

    A signal raises SignalStop at once, and within `in_time` it is noted, for `agree` to find. A second Ctrl-C
    raises SignalStop there too.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._deadline: float | None = None
        self._in_time = False
        self._status: int | None = None
        self._interrupted = float("-inf")
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def limit(self, minutes: float | None) -> None:
        """From when this object was made; None for no limit."""
        self._deadline = None if minutes is None else self._started + 60 * minutes

    def __enter__(self) -> Stopping:
        # Python allows it nowhere else.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in stopping_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            # The launcher sends SIGUSR1 until the process is gone, which must not die of it now.
            late = number == getattr(signal, "SIGUSR1", None)
            signal.signal(number, signal.SIG_IGN if late else before)

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Within it signals wait for the next call of `agree`."""
        self._in_time = True
        try:
            yield
        finally:
            self._in_time = False

    def agree(self, *wishes: bool) -> Sequence[int]:
        """What any rank asks for: the wishes, then 1 + the exit status where it is to stop, else 0.

        The same on every rank; called on every rank at the same step.
        """
        return distributed.max_over_ranks([*wishes, self._asked()])

    def check(self) -> None:
        """Raises Stopped on every rank where one was asked to stop; called on every rank."""
        stop_if(*self.agree())

    def noted(self, number: int) -> bool:
        """Whether this signal is the one that waits for `agree`."""
        return self._status == STATUS[number]

    def _asked(self) -> int:
        if self._status is not None:
            return 1 + self._status
        return int(self._deadline is not None and time.monotonic() >= self._deadline)

    def _handle(self, number: int, _: object) -> None:
        if os.getpid() != self._process:
            self._handle_in_copy(number)
            return
        now = time.monotonic()
        again = number == signal.SIGINT and self._status is not None and now - self._interrupted > _SAME
        if not self._in_time or again:
            raise SignalStop(number)
        if self._status is None:
            self._status = STATUS[number]
            if number == signal.SIGINT and distributed.is_main():
                os.write(2, b"stopping at the next step; Ctrl-C again stops at once\n")
        if number == signal.SIGINT:
            self._interrupted = now

    def _handle_in_copy(self, number: int) -> None:
        """In a process that was forked and handles nothing of its own yet: only its parent decides."""
        if number == signal.SIGTERM:
            os._exit(STATUS[number])
