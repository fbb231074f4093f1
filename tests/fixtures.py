"""Where the optional fixture data lies: photographs, evaluator cases, parity cases."""

import os
from pathlib import Path

import pytest


def fixtures_dir() -> Path | None:
    """`$RICHSEM_FIXTURES`, else the folder `shared` beside the repository; None where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("RICHSEM_FIXTURES") or default)
    return path if path.is_dir() else None


def require_fixture(relative: str) -> Path:
    """The path of one fixture; skips the calling test where it is absent."""
    root = fixtures_dir()
    if root is None or not (root / relative).exists():
        pytest.skip(f"fixture {relative} is absent (set RICHSEM_FIXTURES)")
    return root / relative
