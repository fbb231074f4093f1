"""Imports run one way: import-linter's contracts in pyproject.toml hold, and each of them can fail."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.source_files import PACKAGES, ROOT

# One import against each contract, in their order.
VIOLATIONS = (
    ("util/boxes.py", "import engine.schedule"),
    ("datasets/detection.py", "from config import Config"),
    ("engine/schedule.py", "def f():\n    import main"),
    ("models/dino/heads.py", "from ..richsem import teacher"),
    ("models/dino/ops/module.py", "from models.dino.layers import MLP"),
    ("datasets/images/reader.py", "import datasets.loader"),
    ("models/dino/layers.py", "import models.dino.heads"),
)


def report(folder: Path) -> tuple[int, str]:
    """Exit status and output of import-linter in `folder`."""
    program = "from importlinter.cli import lint_imports_command as main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_run_one_way():
    status, output = report(ROOT)
    assert status == 0, output


def test_every_contract_can_fail(tmp_path):
    for package in (*PACKAGES, "tools"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in VIOLATIONS:
        with (tmp_path / path).open("a") as file:
            file.write(f"\n{line}\n")
    status, output = report(tmp_path)
    contracts = re.findall(r'^name = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    kept = [name for name in contracts if f"{name} BROKEN" not in output]
    assert status == 1 and len(contracts) == len(VIOLATIONS) and not kept, output
