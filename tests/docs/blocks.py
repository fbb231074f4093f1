"""The code blocks of the documentation: README.md and docs/*.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.source_files import ROOT

SHELL = ("bash", "shell", "sh")
# A block that cannot run on its own: it needs a GPU, LVIS, a network, or names that the text explains.
SKIP = "no-test"


@dataclass(frozen=True)
class Block:
    """One fenced block. line: that of its first line of code, from 1."""

    page: str
    line: int
    language: str
    marks: tuple[str, ...]
    code: str

    @property
    def runs(self) -> bool:
        """Whether a test is to run it."""
        return self.language in ("python", *SHELL) and SKIP not in self.marks


def pages(root: Path = ROOT) -> list[str]:
    """The documentation's pages, relative to the repository."""
    return ["README.md", *sorted(f"docs/{path.name}" for path in (root / "docs").glob("*.md"))]


def blocks(page: str, root: Path = ROOT) -> list[Block]:
    """All fenced blocks of a page, in order, those inside a list without the list's indentation."""
    found, opening, code = [], None, []
    for number, line in enumerate((root / page).read_text(encoding="utf-8").splitlines(), 1):
        fence = re.fullmatch(r"(\s*)```\s*(.*)", line)
        if opening is None and fence:
            indent, words = fence[1], fence[2].split()
            opening, code = (number + 1, len(indent), words[:1], tuple(words[1:])), []
        elif opening is not None and fence:
            first, _, language, marks = opening
            found.append(Block(page, first, "".join(language), marks, "\n".join(code) + "\n"))
            opening = None
        elif opening is not None:
            code.append(line[opening[1] :] if not line[: opening[1]].strip() else line)
    assert opening is None, f"{page}:{opening[0] - 1}: a block that does not end"
    return found
