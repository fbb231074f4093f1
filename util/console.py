"""The console: names of all languages can be printed to any, and it may go away."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

_STANDARD_OUTPUT = 1
# Nobody reads it any more: a pipe's end has closed, a terminal has hung up.
_GONE = (errno.EPIPE, errno.EIO)


def prepare_console() -> None:
    r"""From now on no text and no fault of the console is an error of the program.

    Names of classes and files come from data of any language, and a console may be ASCII (`LANG=C`, a Windows
    code page, the log of a scheduler). What its encoding lacks is written as an escape, `\u8d64`: escapes,
    unlike question marks, keep two names apart.

    `| head` closes the pipe, a terminal hangs up, the disk of a redirected log fills up. What cannot be
    written is lost, and the work goes on; where a full disk is the reason, standard error says so once.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # a notebook's stream takes everything
            continue
        if stream is getattr(sys, f"__{name}__") and stream.fileno() in (_STANDARD_OUTPUT, 2):
            stream.flush()
            setattr(sys, name, _lasting(stream))
        else:
            stream.reconfigure(errors="backslashreplace")


def output_was_lost() -> bool:
    """Whether standard output could not be written for another reason than that nobody reads it."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        return False
    stream.flush()
    raw = getattr(stream.buffer, "raw", stream.buffer)
    return isinstance(raw, _LastingFile) and raw.failed


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, to a file descriptor that may fail."""
    raw = _LastingFile(stream.fileno(), "wb", closefd=False)
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _LastingFile(io.FileIO):
    """Takes all that is written, and loses what cannot be."""

    failed = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self._warn(error)
            return memoryview(data).nbytes

    def _warn(self, error: OSError) -> None:
        if self.failed or error.errno in _GONE or self.fileno() != _STANDARD_OUTPUT:
            return
        self.failed = True
        with suppress(OSError):
            os.write(2, f"warning: standard output cannot be written ({error.strerror})\n".encode())
