"""Sides of a benchmark that cannot share a process: each in one of its own, `whole_step/worker.py`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.whole_step.spec import Spec
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# The last revision before a training step was made faster: what `previous` stands for.
PREVIOUS = "18081fd"


class Side:
    """A process that builds its model once, and does a step each time it is asked.

    first: what its first step returned and held.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "whole_step.worker"],
            cwd=spec.tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RICHSEM_OPS": "required", "PYTHONPATH": os.pathsep.join(path)},
        )
        self.first = self._ask(json.dumps(asdict(spec)))

    def ask(self, question: str) -> dict[str, Any]:
        """'run', 'parts' or 'counts', as `whole_step/worker.py` answers them."""
        return self._ask(question)

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"{self.spec.side} in {self.spec.tree} ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def started(specs: Mapping[str, Spec]) -> Iterator[dict[str, Side]]:
    """The sides of some specs by name, each built and with its first step done while the others wait."""
    sides: dict[str, Side] = {}
    try:
        for name, spec in specs.items():
            sides[name] = Side(spec)
        yield sides
    finally:
        for side in sides.values():
            side.close()


def take_turns(sides: Mapping[str, Side], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds and CPU seconds of a step of each side: A B C, A B C, ..., after a round unmeasured."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(1 + repeats):
        for name, side in sides.items():
            answer = side.ask("run")
            if turn:
                found[name].append(answer)
    return {
        name: {key: statistics.median(a[key] for a in answers) for key in ("seconds", "cpu_seconds")}
        for name, answers in found.items()
    }


@contextmanager
def previous_tree(folder: Path | None) -> Iterator[Path]:
    """The files of revision PREVIOUS: from git, or the folder where they are given.

    Raises UserError where there is neither.
    """
    if folder is not None:
        if not (folder / "main.py").is_file():
            raise UserError(
                f"--previous {folder}: has no main.py; name the folder of a checkout of {PREVIOUS}"
            )
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", PREVIOUS], capture_output=True, check=False
        )
        if archive.returncode:
            raise UserError(
                f"git has no revision {PREVIOUS} here; name a folder with its files by --previous"
            )
        subprocess.run(["tar", "-x", "-C", name], input=archive.stdout, check=True)
        yield Path(name)


def with_options(spec: Spec, **options: Any) -> Spec:
    """The same with further options of the config."""
    return replace(spec, options={**spec.options, **options})
