"""What the doctor says."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import IntEnum

from util.errors import UserError
from util.logging import get_logger


class Severity(IntEnum):
    """NOTE: good to know.  WARNING: training runs, with less or other data.  ERROR: it stops, or its
    metrics are meaningless."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one part of the data.

    where: the part.  what: what is wrong.  remedy: the fix, "" for a note and where `what` says it.
    examples: what it concerns, most affected first.  cases: how many things that is, 0: all are examples.
    kind: `what` with {n} in place of the number; the same in every part of the data.
    """

    severity: Severity
    where: str
    what: str
    remedy: str = ""
    examples: Sequence[str] = ()
    kind: str = ""
    cases: int = 0

    @property
    def count(self) -> int:
        """How many things it concerns."""
        return self.cases or len(self.examples) or 1

    def to_json(self) -> dict:
        """With every example."""
        entry = {**asdict(self), "severity": self.severity.name.lower(), "count": self.count}
        del entry["cases"]
        return entry


def found(
    severity: Severity, where: str, what: str, examples: Sequence[str], remedy: str
) -> Iterator[Finding]:
    """One finding, or none where there are no examples. `{n}` in `what` becomes their number."""
    if examples:
        yield Finding(severity, where, what.format(n=f"{len(examples):,}"), remedy, examples, what)


def repeated(values: Sequence) -> list[str]:
    """The values that occur several times."""
    return [str(value) for value, count in Counter(values).items() if count > 1]


def _plain(text: str) -> str:
    """Without braces, which `str.format` would replace."""
    return re.sub(r"[{}]", "...", text)


class _Listener(logging.Handler):
    """messages: format -> what was logged with it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.setdefault(str(record.msg), []).append(record.getMessage())

    def findings(self, where: str) -> Iterator[Finding]:
        """Warnings that differ in names and numbers only are one finding."""
        for form, messages in self.messages.items():
            if len(messages) == 1:
                yield Finding(Severity.WARNING, where, messages[0])
            else:
                what = re.sub(r"%[-#0 +]*[\d.]*\w", "...", _plain(form))
                yield from found(Severity.WARNING, where, f"{{n}} times: {what}", messages, "")


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
        stops = "training stops with this message"
        findings.append(Finding(Severity.ERROR, where, str(error), stops, kind=_plain(str(error))))
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
    if warnings:
        findings += listener.findings(where)
