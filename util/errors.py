"""The one exception that is meant for the user."""

import sys
from collections.abc import Callable, Iterable, Sequence

from util.console import output_was_lost, prepare_console


class UserError(Exception):
    """An error the user can fix: a path, a key, a file, a shape.

    The message is one line that names the thing and, where there is one, the nearest right value.
    Programs print it without a traceback and exit with status 2.
    """


def nearest(word: object, choices: Iterable[object]) -> str:
    """`" Did you mean 'x'?"` for the choice nearest to `word`, or `""` when none is near."""
    import difflib

    if len(str(word)) > 200:  # no typing error, and it would take long
        return ""
    match = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else ""


def listed(items: Sequence[object], most: int, separator: str = ", ", count: int | None = None) -> str:
    """`a, b and 3 more`: the first `most` of `count` items, and the number of the others.

    count: default the number of `items`, of which the first `most` are enough.
    """
    others = (len(items) if count is None else count) - most
    shown = separator.join(map(str, items[:most]))
    return f"{shown} and {others} more" if others > 0 else shown


def first_line(error: BaseException) -> str:
    """The first line of an error's message, up to 200 characters; its type where the message is empty."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an error that cannot even say what it is
        lines = []
    return (lines or [type(error).__name__])[0][:200]


def run_command(main: Callable[[], int]) -> int:
    """Runs a program and returns its exit status: that of `main`, 130 after Ctrl-C.

    2 after a UserError, or where what it printed could not be written.
    """
    prepare_console()
    try:
        return main() or 2 * output_was_lost()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        return 130
