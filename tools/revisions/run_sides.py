"""Runs command lines of `main.py` in several checkouts, one process for each. See tools/compare_revisions.py.

Reads one JSON object from standard input. `libraries`: modules to import before the processes are forked,
which takes longer than the runs; nothing of this project is imported here. `sides`: for each checkout
`folder`, its working directory, `output`, the file for what it prints, and `commands`, a list of argument
lists. Exits with 0, or with the index plus 1 of the first checkout in which a command fails.
"""

import importlib
import json
import os
import runpy
import sys
import traceback


def run_commands(folder: str, commands: list[list[str]]) -> int:
    """Runs `python main.py WORDS` for each command until one fails. Returns the exit status, 0 or 1."""
    os.chdir(folder)
    sys.path[0] = folder
    for words in commands:
        sys.argv = ["main.py", *words]
        try:
            runpy.run_path("main.py", run_name="__main__")
        except SystemExit as end:
            if end.code:
                if not isinstance(end.code, int):
                    print(end.code, file=sys.stderr)
                return 1
        except BaseException:
            traceback.print_exc()
            return 1
    return 0


def run_side(folder: str, output: str, commands: list[list[str]]) -> bool:
    """Whether all commands succeed in a process of their own."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = run_commands(folder, commands)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> int:
    job = json.load(sys.stdin)
    for name in job["libraries"]:
        importlib.import_module(name)
    for index, side in enumerate(job["sides"]):
        if not run_side(**side):
            return index + 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
