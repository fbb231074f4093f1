"""Runs `main.py` for each run of a grid, several at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.ablation.plan import Run
from util.files import writing
from util.lifetime import LAUNCHER
from util.signals import STATUS

_MAIN = Path(__file__).resolve().parents[2] / "main.py"
# Seconds between two looks at the processes.
_POLL = 0.2
# torchrun sets them: a run would wait for other ranks.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID")


@dataclass(frozen=True)
class Machine:
    """How runs use this machine. Their results do not depend on it, but for the device.

    threads: of the grid.  allow_outside: as of `main.py`."""

    device: str
    num_workers: int
    threads: int
    allow_outside: bool

    def command(self, run: Run) -> list[str]:
        """One training run, which goes on where it stopped."""
        words = [sys.executable, str(_MAIN), "--resume", "auto", "-c", str(run.config_file)]
        words += ["--data_path", str(run.data), "--output_dir", str(run.folder.path), "--seed", str(run.seed)]
        words += ["--device", self.device, "--num_workers", str(self.num_workers)]
        return words + ["--allow_outside"] * self.allow_outside

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _RANK_VARIABLES}
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        # Waiting threads sleep: spinning ones only slow the other runs down.
        return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | threads | {LAUNCHER: str(os.getpid())}


@dataclass
class Processes:
    """The runs that are under way."""

    machine: Machine
    running: dict[Run, subprocess.Popen] = field(default_factory=dict)

    def run_all(self, runs: Sequence[Run], jobs: int, ended: Callable[[Run, int], None]) -> None:
        """Runs all of them, `jobs` at a time.

        ended: called with each run that has ended, and its exit status.
        What a signal raises here is raised again when the processes have stopped in order.
        """
        waiting = list(reversed(runs))
        try:
            while waiting or self.running:
                while waiting and len(self.running) < jobs:
                    self._start(waiting.pop())
                for run, process in list(self.running.items()):
                    status = process.poll()
                    if status is not None:
                        del self.running[run]
                        ended(run, status)
                time.sleep(_POLL)
        finally:
            self._stop()

    def _start(self, run: Run) -> None:
        run.prepare()
        with writing(output_of(run)), open(output_of(run), "wb") as output:
            # Started by the main thread: the kernel ends the process with the thread that started it.
            self.running[run] = subprocess.Popen(
                self.machine.command(run),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.machine.environment(),
            )

    def _stop(self) -> None:
        """Asks what still runs to stop with a checkpoint, and waits. A second signal kills."""
        if self.running:
            print(f"stopping {len(self.running)} runs, each with a checkpoint", file=sys.stderr, flush=True)
        try:
            for process in self.running.values():
                process.terminate()
            for process in self.running.values():
                process.wait()
        finally:
            for process in self.running.values():
                process.kill()
                process.wait()


def output_of(run: Run) -> Path:
    """What the run printed since its last start."""
    return run.folder.path / "output.txt"


def was_stopped(status: int) -> bool:
    """Whether an exit status is that of a run that was asked to stop, rather than of one that failed."""
    return status in (*(s for s in STATUS.values() if s), *(-number for number in STATUS))


def why_it_failed(run: Run, status: int) -> str:
    """The last line that the run printed, or how it ended."""
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    try:
        lines = output_of(run).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ended
    lines = [line.strip() for line in lines if line.strip()]
    return f"{lines[-1]:.300} ({ended})" if lines else ended
