"""Starts of main.py without its imports: a process that has them forks a process for each command.

The forked processes are as real as others, and are killed as those; only what happens before the first line
of `main` is not tried in them. `python -m tests.faults.zygote FOLDER` reads a request a line.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import main as program
from tests.faults.inject import install_from_environment
from tests.source_files import ROOT


@dataclass
class Forked:
    """A forked process, as subprocess.Popen shows one. file: gets its exit status."""

    pid: int
    file: Path

    def poll(self) -> int | None:
        return int(self.file.read_text()) if self.file.exists() else None

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("main.py", timeout)
            time.sleep(0.005)
        return status


class Zygote:
    """The process that forks; `close` it. folder: for its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", str(folder)],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, words: Sequence[str], environment: Mapping[str, str], output: Path) -> Forked:
        """main.py with these words. output: the file that its words are added to."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"words": list(words), "environment": dict(environment), "output": str(output)}
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
        return Forked(pid, self.folder / f"{pid}.status")

    def close(self) -> None:
        self._process.communicate()


def _serve(folder: Path) -> None:
    children: set[int] = set()
    while True:
        if select.select([sys.stdin], [], [], 0.005)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            pid = os.fork()
            if not pid:
                _child(**json.loads(line))
            children.add(pid)
            print(pid, flush=True)
        while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            children.remove(ended[0])
            temporary = folder / f"{ended[0]}.new"
            temporary.write_text(str(os.waitstatus_to_exitcode(ended[1])))
            temporary.rename(folder / f"{ended[0]}.status")


def _child(words: list[str], environment: dict[str, str], output: str) -> None:
    status = 1
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        os.environ.update(environment)
        install_from_environment()
        sys.argv = [str(ROOT / "main.py"), *words]
        status = program.main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
