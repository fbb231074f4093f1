"""The console: names of all languages can be printed to any."""

import io
import sys


def print_any_text() -> None:
    r"""From now on what the console's encoding lacks is written as an escape, `\u8d64`, not an error.

    Names of classes and files come from data of any language, and a console may be ASCII (`LANG=C`, a Windows
    code page, the log of a scheduler). Escapes, unlike question marks, keep two names apart.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's stream takes everything
            stream.reconfigure(errors="backslashreplace")
