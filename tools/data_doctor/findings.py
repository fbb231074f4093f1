"""What the doctor says."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import IntEnum

from util.errors import UserError
from util.logging import get_logger

_SHOWN = 5


class Severity(IntEnum):
    """NOTE: good to know.  WARNING: training runs, with less or other data.  ERROR: it stops, or its
    metrics are meaningless."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """where: the part of the data.  what: what is wrong.  examples: the names it concerns.
    remedy: the fix, "" for a note and where `what` says it."""

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
        return {**asdict(self), "severity": self.severity.name.lower()}


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
    """The readers' warnings, and the error they stop with, become findings.

    warnings: False drops the warnings.
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
        findings += [Finding(Severity.WARNING, where, message) for message in listener.messages]
