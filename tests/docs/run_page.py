"""Runs the blocks of one page in order, in the folder it is started in:  python -m tests.docs.run_page PAGE

The Python blocks of a page share their names, as a reader who types them one after another would have it.
"""

import subprocess
import sys
import traceback
from pathlib import Path

from tests.docs.blocks import Block, blocks


def main() -> int:
    """Status 1 and a line PAGE:LINE for the first block that fails."""
    page = sys.argv[1]
    names: dict = {"__name__": "__main__"}
    for block in blocks(page, Path.cwd()):
        if not block.runs:
            continue
        where = f"{page}:{block.line}"
        print(f"--- {where} {block.language}", flush=True)
        failure = run_python(block, names) if block.language == "python" else run_shell(block)
        if failure:
            print(f"{where}: {failure}", flush=True)
            return 1
    return 0


def run_python(block: Block, names: dict) -> str:
    """What went wrong, with the line of the page; empty if nothing did."""
    # Empty lines before it, so that a traceback has the page's line numbers.
    source = "\n" * (block.line - 1) + block.code
    try:
        exec(compile(source, block.page, "exec"), names)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == block.page
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        return f"{type(error).__name__} in line {line}: {error}"
    return ""


def run_shell(block: Block) -> str:
    """What went wrong, with the line of the page; empty if nothing did."""
    # Bash knows the line of a command that fails.
    source = f"trap 'echo \"line $((LINENO + {block.line - 2})): $BASH_COMMAND\" >&2' ERR\n{block.code}"
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", source], stdin=subprocess.DEVNULL, check=False)
    return f"status {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
