"""Signals that stop a process, and the exit status after each. Imports nothing that takes time."""

import os
import signal

# SLURM and others send SIGUSR1 before a time limit: the run is fine, and goes on later. SIGHUP is a terminal
# that has closed.
STATUS = {
    getattr(signal, name): status
    for name, status in (("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129), ("SIGUSR1", 0))
    if hasattr(signal, name)
}


class SignalStop(KeyboardInterrupt):
    """Raised where a signal ends the process at once.  number: the signal.  status: the exit status."""

    def __init__(self, number: int) -> None:
        super().__init__(said(number))
        self.number = number
        self.status = STATUS[number]


def said(number: int) -> str:
    """The line for people."""
    return "stopped by the user" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def stopped_by(number: int) -> int:
    """Says that a signal stopped this process, and returns the exit status.

    A job of several ranks says it once: rank 0 does, but of SIGTERM the launcher, which sends it to all,
    also when one of them has failed. They end by it without a word.
    """
    if number == signal.SIGTERM and "TORCHELASTIC_RUN_ID" in os.environ:
        end_by_sigterm()
    if os.environ.get("RANK", "0") == "0":
        os.write(2, f"{said(number)}\n".encode())
    return STATUS[number]


def end_by_sigterm() -> None:
    """Ends this process as an unhandled SIGTERM does."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


def ignored(name: str) -> bool:
    """Whether this process ignores a signal, by name: SIGHUP does so by nohup."""
    return hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_IGN


def stopping_signals() -> list[int]:
    """Those of `STATUS` that are to stop this process: all, but for a hang-up under nohup."""
    hang_up = getattr(signal, "SIGHUP", None)
    return [number for number in STATUS if not (number == hang_up and ignored("SIGHUP"))]


def end_at_once() -> None:
    """Until something else handles them, signals end the process with their status and one line."""

    def end(number: int, _: object) -> None:
        os._exit(stopped_by(number))

    for number in stopping_signals():
        # The launcher has this one ignored until the process handles it, and sends it again.
        again = number == getattr(signal, "SIGUSR1", None) and ignored("SIGUSR1")
        if not again:
            signal.signal(number, end)
