"""What the doctor says."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from util.errors import UserError
from util.logging import get_logger

_SHOWN = 5
# By words of the readers' warnings.
_REMEDIES = {
    "made anew": "nothing to do: that is done now",
    "ends at byte": "copy the tar again from where it came",
    "under several ids": "list every image once",
    "hold no image": "put images there, or remove them",
    "in no class folder": "move them to the folder of their class",
    "differ only in case": "merge the classes if they mean the same",
}


class Severity(IntEnum):
    """NOTE: good to know.  WARNING: training goes on, with less or other data.  ERROR: it stops, or its
    numbers mean nothing."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """where: the part of the data.  what: what is the matter.  examples: what it concerns, by name.
    remedy: what helps, "" for a note."""

    severity: Severity
    where: str
    what: str
    remedy: str = ""
    examples: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"{self.severity.name:<8}{self.where}: {self.what}"]
        if self.examples:
            more = len(self.examples) - _SHOWN
            lines.append(
                f"        {'; '.join(self.examples[:_SHOWN])}{f'; and {more} more' if more > 0 else ''}"
            )
        if self.remedy:
            lines.append(f"        -> {self.remedy}")
        return "\n".join(lines)

    def to_json(self) -> dict:
        return {
            "severity": self.severity.name.lower(),
            "where": self.where,
            "what": self.what,
            "remedy": self.remedy,
            "examples": list(self.examples),
        }


def found(
    severity: Severity, where: str, what: str, examples: Sequence[str], remedy: str
) -> Iterator[Finding]:
    """One finding, or none where there are no examples. `{n}` in `what` becomes their number."""
    if examples:
        yield Finding(severity, where, what.format(n=len(examples)), remedy, examples)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def warnings_as_findings(where: str, findings: list[Finding], *, warnings: bool = True) -> Iterator[None]:
    """What the readers of the project warn of, and the error they stop with, become findings.

    warnings: False lets them go unheard.
    """
    logger, listener = get_logger(), _Listener()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        yield
    except UserError as error:
        findings.append(Finding(Severity.ERROR, where, str(error), "training stops with this message"))
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
    if warnings:
        findings += [Finding(Severity.WARNING, where, m, _remedy(m)) for m in listener.messages]


def _remedy(warning: str) -> str:
    return next((remedy for words, remedy in _REMEDIES.items() if words in warning), "")
