"""Signals that stop a process, and the exit status after each. Imports nothing that takes time."""

import os
import signal

# SLURM and others send SIGUSR1 before a time limit: the run is fine, and goes on later.
STATUS = {
    getattr(signal, name): status
    for name, status in (("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 0))
    if hasattr(signal, name)
}


class SignalStop(KeyboardInterrupt):
    """Raised where a signal ends the process at once.  status: the exit status."""

    def __init__(self, number: int) -> None:
        super().__init__(said(number))
        self.status = STATUS[number]


def said(number: int) -> str:
    """The line for people."""
    return "stopped by the user" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def end_at_once() -> None:
    """Until something else handles them, signals end the process with their status and one line."""

    def end(number: int, _: object) -> None:
        os.write(2, f"{said(number)}\n".encode())
        os._exit(STATUS[number])

    for number in STATUS:
        # The launcher has this one ignored until the process handles it, and sends it again.
        again = number == getattr(signal, "SIGUSR1", None) and signal.getsignal(number) == signal.SIG_IGN
        if not again:
            signal.signal(number, end)
