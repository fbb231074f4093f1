"""docs/architecture.md has a line for every source file, and for none that is not there."""

import re
from pathlib import Path

import pytest

from tests.source_files import PACKAGES, ROOT, python_files

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# What a package's own __init__.py is for needs no line, but the two that are an interface.
WITHOUT_LINE = {"__init__.py"}


def described() -> dict[str, set[str]]:
    """Folder -> file names in its table."""
    found: dict[str, set[str]] = {}
    folder = ""
    for line in TEXT.splitlines():
        if heading := re.match(r"### ([\w/]+)/", line):
            folder = heading[1]
        elif line.startswith("#"):
            folder = ""
        elif folder and (row := re.match(r"\| (`[^|]*`) \|", line)):
            found.setdefault(folder, set()).update(re.findall(r"`([^`]+)`", row[1]))
    return found


def test_every_table_is_read():
    assert described().keys() == {
        *("config", "datasets", "engine", "util", "models/dino", "models/dino/ops", "models/richsem")
    }


@pytest.mark.parametrize("folder", sorted(described()))
def test_every_file_has_a_line(folder):
    nested = {other for other in described() if other.startswith(f"{folder}/")}
    here = [p for p in python_files() if p.is_relative_to(folder) and p.parts[0] in PACKAGES]
    here = [p for p in here if not any(p.is_relative_to(other) for other in nested)]
    listed = described()[folder]
    folders = tuple(name for name in listed if name.endswith("/"))
    names = {p.relative_to(folder).as_posix() for p in here if p.name not in WITHOUT_LINE}
    missing = sorted(n for n in names if n not in listed and not n.startswith(folders or ("//",)))
    assert not missing, f"docs/architecture.md has no line for {', '.join(f'{folder}/{n}' for n in missing)}"


@pytest.mark.parametrize("folder", sorted(described()))
def test_every_line_has_a_file(folder):
    gone = sorted(name for name in described()[folder] if not (ROOT / folder / name).exists())
    assert not gone, f"docs/architecture.md speaks of {', '.join(gone)} in {folder}, which are not there"


def test_links_lead_somewhere():
    for document in sorted((ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / Path(target)).exists(), f"{document.name} links to {target}"
