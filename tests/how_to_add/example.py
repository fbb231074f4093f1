"""Runs the Python examples of 'How to add' in docs/architecture.md as they are printed."""

import re
from pathlib import Path
from textwrap import dedent

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def example(title: str) -> str:
    """The Python of the paragraph that begins with **title.**"""
    chapter = DOCUMENT.read_text().split("## How to add", 1)[1]
    paragraphs = {part.split(".**", 1)[0]: part for part in chapter.split("\n**")[1:]}
    return dedent(re.search(r"```python.*\n([^`]*)```", paragraphs[title])[1])


def run_example(title: str, **names) -> dict:
    """Executes it with the given names defined; the names it leaves."""
    exec(compile(example(title), f"{DOCUMENT.name}: {title}", "exec"), names)
    return names
