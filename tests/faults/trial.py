"""One trial: a run is stopped, the same command goes on, and ends as the run that never stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.run_directory import RunDirectory
from engine.run_log import read_log
from tests.faults.bench import Bench, Process, Setting, Trace, position
from tests.faults.inject import Plan
from tests.test_exact_resume import assert_same_run

# The exit status of a run that a signal stops while it trains: of main.py, and through the launcher.
STATUS = {"KILL": (-9, 137), "TERM": (143, 143), "INT": (130, 130), "HUP": (129, 129), "USR1": (0, 0)}


@dataclass(frozen=True)
class Stop:
    """How a run is stopped: at an exact point from within, or from outside.

    point, number: as in `Plan`.  rank: the one that stops, or gets the signal; -1 is the command itself.
    steps, delay: from outside, so many optimizer steps and then seconds after the start.
    """

    signal: str = "KILL"
    point: str = ""
    number: int = 1
    rank: int = 0
    steps: int = 0
    delay: float = 0.0

    def __str__(self) -> str:
        where = f"{self.point} ({self.number})" if self.point else f"{self.steps} steps + {self.delay:.2f} s"
        return f"{self.signal} {where}" + (f", rank {self.rank}" if self.rank else "")


class TooLateError(Exception):
    """The run had ended before it could be stopped, so nothing was tried."""


@dataclass
class Trial:
    """name: of its folder.  plant: a promise that its runs break."""

    bench: Bench
    setting: Setting
    name: str
    plant: str = ""
    redone: list[int] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.bench.folder / "trials" / self.name

    def stop(self, stop: Stop, *more: str) -> Process:
        """Starts the command and stops it so. Raises TooLateError where it ran to its end."""
        before = position(self.run)
        process = self.start(stop, *more)
        if not stop.point:
            process.wait_for_steps(stop.steps)
            time.sleep(stop.delay)
            if not process.running():
                process.wait()
                raise TooLateError(stop)
            target = process.pid_of(stop.rank)
            os.kill(target, signal.Signals[f"SIG{stop.signal}"])
            stop = replace(stop, rank=-1) if target == process.pid else stop
        process.wait()
        self.check_stopped(process, stop)
        self.check_went_on(process.trace, before)
        self.check_fresh(process)
        return process

    def start(self, stop: Stop | None = None, *more: str, prefix: Sequence[str] = ()) -> Process:
        """The command, with a stop from within if that is asked for."""
        trace = str(self.run.with_suffix(".trace"))
        plan = Plan(trace, plant=self.plant)
        if stop is not None and stop.point:
            plan = Plan(trace, stop.point, stop.number, stop.signal, max(0, stop.rank), self.plant)
        return self.bench.start(self.setting, self.run, plan, *more, prefix=prefix)

    def finish(self, whole: Path, *more: str) -> Process:
        """The same command once more: it ends as the run of the folder `whole`."""
        before = position(self.run)
        process = self.start(None, *more)
        status = process.wait()
        assert status == 0, f"the restart ended with {status}: {process.printed()[-2000:]}"
        self.check_went_on(process.trace, before)
        self.check_same(whole)
        return process

    def check_stopped(self, process: Process, stop: Stop) -> None:
        """That it was really stopped, with the status that such a stop has."""
        assert not stop.point or process.trace.events("hit", max(0, stop.rank)), f"was never at {stop}"
        if not process.trace.steps and stop.signal != "KILL":
            return  # the interpreter's own status, while it starts
        expected = STATUS[stop.signal][self.setting.ranks > 1]
        if stop.signal == "KILL" and stop.rank == -1:
            expected = -9
        if process.status == 0 and stop.signal != "KILL" and "stopped at step" not in process.printed():
            raise TooLateError(stop)
        assert process.status == expected, (
            f"status {process.status} instead of {expected}: {process.printed()[-2000:]}"
        )
        # Of a killed process, loader processes may say that it is gone before they are gone too.
        assert stop.signal == "KILL" or "Traceback" not in process.printed(), process.printed()[-3000:]

    def check_went_on(self, trace: Trace, before: int | None) -> None:
        """The steps of a process follow the checkpoint that it found, at step `before`, without a gap."""
        steps = trace.steps
        if before is not None and steps:
            assert trace.numbers("resumed") == [before], f"did not resume from step {before}"
        first = (before or 0) + 1
        assert steps == list(range(first, first + len(steps))), (
            f"steps {steps} after a checkpoint of {before}"
        )

    def check_fresh(self, process: Process) -> None:
        """A stop leaves the last checkpoint that was written, at most one behind the last asked for.

        A stop in order loses no step.
        """
        found, trace = position(self.run) or 0, process.trace
        asked, saved = trace.numbers("asked"), trace.numbers("saved")
        assert found >= max(saved, default=0), f"a checkpoint of step {max(saved)} is gone"
        assert len(asked) < 2 or found >= asked[-2], f"left step {found}, although {asked} were asked for"
        if trace.steps:
            self.redone.append(trace.steps[-1] - found)
            if "stopped at step" in process.printed():
                assert self.redone[-1] == 0, f"{self.redone[-1]} steps are lost by a stop in order"

    def check_same(self, whole: Path) -> None:
        """Model, average, optimizer, all else in the checkpoints, and the log's lines."""
        assert_same_run(RunDirectory(whole), RunDirectory(self.run))
        text = (self.run / "log.jsonl").read_bytes()
        assert text.endswith(b"\n") and text.count(b"\n") == len(read_log(self.run / "log.jsonl"))
        left = [path.name for path in self.run.rglob("*.tmp")] + [p.name for p in self.run.glob("*.claim")]
        assert not left, f"left behind: {left}"
