"""The project's log: readable lines on the console, and in a file of rank 0.

Modules log by `logging.getLogger(__name__)` or `get_logger()`. Nothing but what is passed to the log is
ever written: never the environment.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from termcolor import colored
from tqdm import tqdm

# Our packages report at INFO, libraries below them only warn.
_OURS = ("__main__", "config", "datasets", "engine", "models", "richsem", "tools", "util")
_COLOURS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


def get_logger() -> logging.Logger:
    """The project's own logger, for modules that need no name of their own."""
    return logging.getLogger("richsem")


def setup_logging(rank: int = 0, file: Path | None = None) -> None:
    """Configures the log. May be called again, e.g. once the run directory is known.

    rank: other ranks than 0 only report warnings, marked with their number.
    file: rank 0 also appends plain lines with dates to it.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, (_ConsoleHandler, _FileHandler))]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO if rank == 0 else logging.WARNING)
    root.addHandler(_ConsoleHandler(rank))
    if rank == 0 and file is not None:
        root.addHandler(_FileHandler(file))


@contextmanager
def each_line_once() -> Iterator[None]:
    """Inside, lines of the project's own logger that were said before are not said again.

    For what reads the same data many times over.
    """
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        line = record.getMessage()
        new = line not in said
        said.add(line)
        return new

    get_logger().addFilter(is_new)
    try:
        yield
    finally:
        get_logger().removeFilter(is_new)


class _ConsoleHandler(logging.Handler):
    """Writes to standard output, above a progress bar instead of through it."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.setFormatter(_ConsoleFormatter(rank))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except (OSError, ValueError):  # a closed pipe must not end a training run
            self.handleError(record)


class _FileHandler(logging.FileHandler):
    """Plain lines with dates. A file that cannot be written any more is one warning; the console goes on."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", delay=True, errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError as error:  # of opening it
            self._warn(error)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._warn(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        # What could not be written before cannot be flushed now.
        with suppress(OSError):
            super().close()

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            get_logger().warning("%s: cannot be written (%s)", self.baseFilename, error.strerror or error)


class _ConsoleFormatter(logging.Formatter):
    """`12:34:56 message`, coloured where the console can (termcolor decides)."""

    def __init__(self, rank: int) -> None:
        super().__init__("%(message)s")
        self.rank_mark = f"[rank {rank}] " if rank else ""

    def format(self, record: logging.LogRecord) -> str:
        message = self.rank_mark + super().format(record)
        if record.levelno in _COLOURS:
            message = colored(f"{record.levelname.lower()}: {message}", _COLOURS[record.levelno])
        return f"{colored(self.formatTime(record, '%H:%M:%S'), 'dark_grey')} {message}"
