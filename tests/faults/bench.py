"""Starts training commands as real processes on tiny data, and reads what they left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.datasets.tiny import write_all
from tests.faults.inject import Plan
from tests.faults.zygote import Zygote
from tests.source_files import ROOT
from tests.test_cli import TINY
from tests.util.test_lifetime import alive
from util.checkpoint import Checkpoint

HOOK = Path(__file__).parent / "hook"
# Seconds that a run of a few steps may take on a loaded machine before it counts as hung.
PATIENCE = 300.0


@dataclass(frozen=True)
class Setting:
    """What the runs of a trial have in common; both streams, two epochs, an evaluation after each."""

    ranks: int = 1
    workers: int = 0
    accumulate: int = 1
    save_interval: int = 2
    options: tuple[str, ...] = ()

    def words(self) -> list[str]:
        options = [
            "tracker=none",
            # Denoising and the federated loss draw from the generators of torch.
            "dn_box_noise_scale=0.4",
            "fed_num_sample_cats=2",
            f"batch_size={2 if self.ranks == 1 else 1}",
            f"accumulate_steps={self.accumulate}",
            f"save_interval={self.save_interval}",
        ]
        return ["--num_workers", str(self.workers), "--options", *options, *self.options]


@dataclass
class Bench:
    """A folder with a config, data and the runs of trials. zygote: forks runs, where it is given."""

    folder: Path
    zygote: Zygote | None = None

    @classmethod
    def made(cls, folder: Path) -> Bench:
        write_all(folder / "data")
        (folder / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
        return cls(folder)

    def words(self, setting: Setting, run: Path, *more: str) -> list[str]:
        """The arguments of main.py, the same for a start and for a restart."""
        named = ["-c", str(self.folder / "tiny.py"), "--data_path", str(self.folder / "data")]
        return [
            *named,
            "--device",
            "cpu",
            "--output_dir",
            str(run),
            "--resume",
            "auto",
            *more,
            *setting.words(),
        ]

    def start(
        self, setting: Setting, run: Path, plan: Plan, *more: str, prefix: Sequence[str] = ()
    ) -> Process:
        """The command: main.py, or with several ranks the script that launches them.

        more: further flags.  prefix: a command that runs it.
        """
        words = self.words(setting, run, *more)
        program = [sys.executable, str(ROOT / "main.py")]
        if setting.ranks > 1:
            program = ["bash", str(ROOT / "scripts" / "richsem_dist.sh"), str(setting.ranks)]
        environment = {
            **os.environ,
            **plan.environment(),
            "PYTHONPATH": f"{HOOK}{os.pathsep}{ROOT}",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        output = run.with_suffix(".out")
        output.parent.mkdir(parents=True, exist_ok=True)
        start = output.stat().st_size if output.exists() else 0
        trace = Trace.at(Path(plan.trace))
        if self.zygote is not None and setting.ranks == 1 and not prefix:
            return Process(self.zygote.start(words, plan.environment(), output), output, start, trace)
        with output.open("ab") as file:
            popen = subprocess.Popen(
                [*prefix, *program, *words],
                cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        return Process(popen, output, start, trace)


@dataclass(frozen=True)
class Trace:
    """The lines of one process or of its ranks: those that a file got after `start`."""

    path: Path
    start: int

    @classmethod
    def at(cls, path: Path) -> Trace:
        return cls(path, path.stat().st_size if path.exists() else 0)

    def events(self, kind: str, rank: int = 0) -> list[list[str]]:
        """The words after `kind`, of every such line of a rank."""
        text = self.path.read_bytes()[self.start :].decode() if self.path.exists() else ""
        lines = [line.split() for line in text.splitlines()]
        return [line[3:] for line in lines if int(line[0]) == rank and line[2] == kind]

    def numbers(self, kind: str) -> list[int]:
        return [int(words[0]) for words in self.events(kind)]

    @property
    def steps(self) -> list[int]:
        return self.numbers("step")


@dataclass
class Process:
    """A command that runs. output: its file.  start: where its own words begin there."""

    popen: Any
    output: Path
    start: int
    trace: Trace
    status: int | None = field(default=None)

    @property
    def pid(self) -> int:
        return int(self.popen.pid)

    def pid_of(self, rank: int) -> int:
        """The process of a rank, or the command itself for -1 and for a rank that has not started."""
        starts = self.trace.events("start", rank) if rank >= 0 else []
        return int(starts[-1][0]) if starts else self.pid

    def running(self) -> bool:
        return self.popen.poll() is None

    def printed(self) -> str:
        return self.output.read_bytes()[self.start :].decode(errors="replace")

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit status, when it and all that it started are gone. Raises AssertionError where it hangs."""
        try:
            self.status = self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"hung for {patience:.0f} s: {self.printed()[-2000:]}") from None
        deadline = time.monotonic() + 20
        while left := self.processes():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"orphans: {left}")
            time.sleep(0.02)
        return self.status

    def wait_for_steps(self, count: int) -> None:
        """Until so many optimizer steps are done, or the process has ended."""
        deadline = time.monotonic() + PATIENCE
        while len(self.trace.steps) < count and self.running():
            assert time.monotonic() < deadline, self.printed()[-2000:]
            time.sleep(0.005)

    def processes(self) -> list[int]:
        """All of its session: itself, ranks and loader processes."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                session = int(stat.read_text().rpartition(")")[2].split()[3])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if session == self.pid and alive(int(stat.parent.name)):
                found.append(int(stat.parent.name))
        return sorted(found)

    def kill(self) -> None:
        for pid in self.processes():
            os.kill(pid, 9)


def position(run: Path) -> int | None:
    """The optimizer step of a run's latest checkpoint, None where there is none."""
    path = run / "checkpoint.pth"
    if not path.exists():
        return None
    content = Checkpoint.read(path)
    assert content.scheduler is not None
    return int(content.scheduler["position"])
