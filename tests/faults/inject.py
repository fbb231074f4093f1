"""Stops a process at an exact point of its work, from outside of the product: by patched functions.

A `Plan` in the environment of a command reaches each of its processes (`hook/sitecustomize.py`), whose own
modules are patched as soon as they are imported. The process also writes a trace: a line for each start,
resume, optimizer step and checkpoint, by which a trial knows what really happened.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from tests.faults import plants

VARIABLE = "FAULT_PLAN"
Hit = Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """trace: the file for the lines.
    point: where the process stops, one of `POINTS`; empty for nowhere.
    number: at which of the times that it comes there, from 1.
    signal: that it sends to itself there.
    rank: the one that stops.
    plant: a promise that is broken, one of `plants.PLANTS`; empty for none.
    """

    trace: str
    point: str = ""
    number: int = 1
    signal: str = "KILL"
    rank: int = 0
    plant: str = ""

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


@dataclass(frozen=True)
class Point:
    """module: whose import `patch` waits for; it is called with that module and what stops the process."""

    module: str
    patch: Callable[[Any, Hit], None]


class Injection:
    """A plan at work in this process; processes that it forks are left alone."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.pid, self.count = plan, os.getpid(), 0
        self.rank = int(os.environ.get("RANK", "0"))

    def note(self, *words: Any) -> None:
        """A line of the trace, which no kill can tear."""
        line = " ".join(map(str, (self.rank, self.pid, *words)))
        descriptor = os.open(self.plan.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def hit(self) -> None:
        """The process is at its point."""
        if os.getpid() != self.pid or self.rank != self.plan.rank:
            return
        self.count += 1
        if self.count == self.plan.number:
            self.note("hit", self.plan.signal)
            os.kill(self.pid, signal.Signals[f"SIG{self.plan.signal}"])

    def patches(self) -> dict[str, list[Callable[[ModuleType], None]]]:
        """What is done to a module when it is imported."""
        found: dict[str, list[Callable[[ModuleType], None]]] = {}
        for module, trace in _TRACES.items():
            found.setdefault(module, []).append(functools.partial(trace, self.note))
        if self.plan.plant:
            for module, plant in plants.PLANTS[self.plan.plant].items():
                found.setdefault(module, []).append(plant)
        if self.plan.point:
            point = POINTS[self.plan.point]
            found.setdefault(point.module, []).append(lambda module: point.patch(module, self.hit))
        return found


def install(plan: Plan) -> None:
    """Patches modules of this process, those that are imported later included."""
    patches = Injection(plan).patches()
    for name in patches:
        if name in sys.modules:
            for patch in patches[name]:
                patch(sys.modules[name])
    sys.meta_path.insert(0, _Finder(patches))


def install_from_environment() -> None:
    if VARIABLE in os.environ:
        install(Plan(**json.loads(os.environ[VARIABLE])))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules as usual, and patches them when they have run."""

    def __init__(self, patches: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self.patches = patches

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self.patches:
            return None
        patches = self.patches.pop(name)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            for patch in patches:
                patch(module)

        spec.loader.exec_module = run_and_patch
        return spec


def wrap(owner: Any, name: str, before: Hit | None = None, after: Callable[..., None] | None = None) -> None:
    """Puts calls around a function. after: gets what the function got."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            before()
        result = function(*arguments, **named)
        if after is not None:
            after(*arguments)
        return result

    setattr(owner, name, wrapped)


def _around(owner: str, name: str, *, after: bool = False) -> Callable[[Any, Hit], None]:
    """A patch that stops before or after each call of `owner`.`name`."""

    def patch(module: Any, hit: Hit) -> None:
        target = getattr(module, owner) if owner else module
        wrap(target, name, **{"after": lambda *_: hit()} if after else {"before": hit})

    return patch


def _rename(target: str, *, after: bool = False) -> Callable[[Any, Hit], None]:
    """Stops before or after a file gets its name."""

    def patch(_: Any, hit: Hit) -> None:
        replace = os.replace

        def wrapped(source: Any, path: Any) -> None:
            ours = os.path.basename(path) == target
            if ours and not after:
                hit()
            replace(source, path)
            if ours and after:
                hit()

        os.replace = wrapped

    return patch


def _sync(part: str, *, after: bool = False) -> Callable[[Any, Hit], None]:
    """Stops before or after the disk has a file whose name contains `part`."""

    def patch(_: Any, hit: Hit) -> None:
        sync = os.fsync

        def wrapped(descriptor: int) -> None:
            ours = part in os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
            if ours and not after:
                hit()
            sync(descriptor)
            if ours and after:
                hit()

        os.fsync = wrapped

    return patch


def _half_checkpoint(module: Any, hit: Hit) -> None:
    """Stops when half of a checkpoint's bytes are written."""
    write = module._write

    def wrapped(path: Any, content: Any) -> None:
        write(path, content)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        hit()
        path.write_bytes(whole)

    module._write = wrapped


def _half_line(module: Any, hit: Hit) -> None:
    """Stops when half of a log line is written."""
    append = module.RunLog._append

    def wrapped(self: Any, kind: str, entry: Any) -> None:
        start = self.path.stat().st_size if self.path.exists() else 0
        append(self, kind, entry)
        end = self.path.stat().st_size
        os.truncate(self.path, (start + end) // 2)
        hit()
        os.truncate(self.path, start)
        append(self, kind, entry)

    module.RunLog._append = wrapped


def _background_write(_: Any, hit: Hit) -> None:
    """Stops two optimizer steps after a write began, which is still in its middle then."""
    half, steps = threading.Event(), threading.Semaphore(0)
    checkpoint, trained = sys.modules["util.checkpoint"], sys.modules["engine.train_epoch"].TrainStep
    write, step = checkpoint._write, trained._step

    def slow_write(path: Any, content: Any) -> None:
        write(path, content)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        half.set()
        steps.acquire(timeout=20)
        path.write_bytes(whole)
        half.clear()

    def counted(self: Any) -> Any:
        result = step(self)
        if half.is_set():
            counted.seen += 1
            if counted.seen % 2 == 0:
                hit()
                steps.release()
        return result

    counted.seen = 0
    checkpoint._write, trained._step = slow_write, counted


def _trace_steps(note: Callable[..., None], module: Any) -> None:
    note("start", os.getpid())
    wrap(module.TrainStep, "_step", after=lambda self: note("step", self.state.step))


def _trace_resume(note: Callable[..., None], module: Any) -> None:
    wrap(module.TrainingState, "restore", after=lambda self, _: note("resumed", self.step))


def _trace_saves(note: Callable[..., None], module: Any) -> None:
    def position(checkpoint: Any) -> int:
        return checkpoint.scheduler["position"]

    wrap(module.CheckpointWriter, "save", after=lambda self, c: note("asked", position(c)))
    wrap(module.CheckpointWriter, "_write", after=lambda self, c, *_: note("saved", position(c.checkpoint())))


_TRACES = {
    "engine.train_epoch": _trace_steps,
    "engine.state": _trace_resume,
    "engine.checkpoint_writer": _trace_saves,
}

_LATEST, _BEST = "checkpoint.pth", "checkpoint_best.pth"

POINTS = {
    "before the first step": Point("engine.fit", _around("", "train_one_epoch")),
    "within an accumulated step": Point("engine.train_epoch", _around("Task", "losses")),
    "after a step": Point("engine.train_epoch", _around("TrainStep", "_step", after=True)),
    "half a checkpoint": Point("util.checkpoint", _half_checkpoint),
    "before a checkpoint's fsync": Point("engine.checkpoint_writer", _sync(f".{_LATEST}.")),
    "after a checkpoint's fsync": Point("engine.checkpoint_writer", _sync(f".{_LATEST}.", after=True)),
    "before a checkpoint's rename": Point("engine.checkpoint_writer", _rename(_LATEST)),
    "after a checkpoint's rename": Point("engine.checkpoint_writer", _rename(_LATEST, after=True)),
    "before the best one's rename": Point("engine.checkpoint_writer", _rename(_BEST)),
    "between best and latest": Point("engine.checkpoint_writer", _rename(_BEST, after=True)),
    "during a background write": Point("engine.fit", _background_write),
    "during evaluation": Point("datasets.evaluation.evaluator", _around("BoxEvaluator", "update")),
    "after evaluation": Point("datasets.evaluation.evaluator", _around("BoxEvaluator", "finish", after=True)),
    "before an epoch line": Point("engine.run_log", _around("RunLog", "epoch")),
    "after an epoch line": Point("engine.run_log", _around("RunLog", "epoch", after=True)),
    "half a log line": Point("engine.run_log", _half_line),
    "before later lines are set aside": Point("engine.run_log", _rename("log.jsonl")),
    "after later lines are set aside": Point("engine.run_log", _rename("log.jsonl", after=True)),
    "before a folder is taken over": Point("engine.run_lock", _rename("run.lock")),
    "after a folder is taken over": Point("engine.run_lock", _rename("run.lock", after=True)),
    "before a resume": Point("engine.state", _around("TrainingState", "restore")),
    "after a resume": Point("engine.state", _around("TrainingState", "restore", after=True)),
}
