"""What the tests of builds share: programs that play a compiler, libraries, Python in another environment."""

import os
import subprocess
import sys
from pathlib import Path

from models.dino.ops import compiler, extension

ROOT = Path(__file__).resolve().parents[4]


def start(script: str, **environment: str) -> subprocess.Popen:
    """Python in the repository's root, without what would steer the build."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RICHSEM_OPS", "CXX", "ATEN_"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env={**inherited, **environment}, **pipes
    )


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def status_of(monkeypatch, **environment: str) -> extension.Status:
    """The status in another environment, beside what this process has loaded."""
    for name in ("RICHSEM_OPS", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return extension.status.__wrapped__("cpu")


def place(library: Path, content: bytes) -> None:
    """A library as `compiler.build` leaves it."""
    library.write_bytes(content)
    compiler._stamp(library).write_text(compiler._checksum(library))
