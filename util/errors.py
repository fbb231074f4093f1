"""The one exception that is meant for the user."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: a path, a key, a file, a shape.

    The message is one line that names the thing and, where there is one, the nearest right value.
    Command line programs print it without a traceback and exit with status 2.
    """


def nearest(word: str, choices) -> str:
    """`" Did you mean 'x'?"` for the choice nearest to `word`, or `""` when none is near."""
    import difflib

    match = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else ""


def run_command(main: Callable[[], int]) -> int:
    """Exit status of a command line program: that of `main`, or 2 after a UserError, which is printed."""
    try:
        return main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by the user", file=sys.stderr)
        return 130
