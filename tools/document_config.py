"""Writes the tables of docs/configuration.md from the schema.

python tools/document_config.py            rewrites what lies between the markers
python tools/document_config.py --check    only says whether the file is current (exit status 1 if not)
"""

import argparse
import re
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.keys import SECTIONS
from config.official import IGNORED_KEYS, UNSUPPORTED_KEYS
from config.schema import key_types
from config.values import describe
from util.errors import UserError, run_command

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"


def live_tables() -> str:
    """One table per section: key, type, default, meaning."""
    return "\n\n".join(f"### {title}\n\n{_table(section)}" for title, section in SECTIONS.items())


def left_out_table() -> str:
    """Keys accepted at their official value only."""
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", f"`{list(value) if isinstance(value, tuple) else value!r}`", reason)
        for name, (value, reason) in UNSUPPORTED_KEYS.items()
    ]
    return _rows(("Key", "Only value", "Because"), rows)


def dead_list() -> str:
    """Keys that the official code never reads."""
    return ", ".join(f"`{name}`" for name in sorted(IGNORED_KEYS))


def rewritten(document: str) -> str:
    """`document` with fresh text between its markers. Raises UserError where a marker is missing."""
    for name, text in (("live", live_tables()), ("left-out", left_out_table()), ("dead", dead_list())):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(document):
            raise UserError(f"{DOCUMENT}: the marker '{begin}' or '{end}' is missing")
        block = f"{begin}\n\n{text}\n\n{end}"
        document = block.join(pattern.split(document, maxsplit=1))
    return document


def _table(section: type) -> str:
    return _rows(("Key", "Type", "Default", "Meaning"), [_row(declared) for declared in fields(section)])


def _row(declared: Field) -> tuple[str, ...]:
    default = declared.default if declared.default_factory is MISSING else declared.default_factory()
    shown = list(default) if isinstance(default, tuple) else default
    mark = "" if declared.metadata["official"] else " *"
    kind = describe(key_types()[declared.name])
    return f"`{declared.name}`{mark}", kind, f"`{shown!r}`", declared.metadata["doc"]


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if the file is out of date"
    )
    args = parser.parse_args(arguments)
    document = DOCUMENT.read_text(encoding="utf-8")
    current = rewritten(document)
    if current == document:
        print(f"{DOCUMENT.name} is current")
        return 0
    if args.check:
        print(f"{DOCUMENT.name} is out of date: run python tools/document_config.py")
        return 1
    DOCUMENT.write_text(current, encoding="utf-8")
    print(f"{DOCUMENT.name} rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
