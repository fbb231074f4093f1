"""The project's own Python files, as git sees the folder: for the tests that read source."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("config", "datasets", "engine", "inference", "models", "util")
PROGRAMS = ("benchmarks", "scripts", "tests", "tools")


@cache
def python_files() -> tuple[Path, ...]:
    """Paths relative to the repository's root, sorted; builds and environments left out."""
    found = [path for folder in (*PACKAGES, *PROGRAMS) for path in (ROOT / folder).rglob("*.py")]
    own = [path.relative_to(ROOT) for path in [*ROOT.glob("*.py"), *found]]
    return tuple(
        sorted(path for path in own if not {"build", "dist", "__pycache__"}.intersection(path.parts))
    )


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of one of `python_files`."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    """`models/dino/__init__.py` -> "models.dino"."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
