"""How benchmarks measure and report, the same for all of them.

Time: candidate and baselines take turns in one process on rotating inputs, after a warm-up; the figure is the
median. Memory: each in a fresh process of its own, the peak above what it held before the measured work.
A row's ratio is reference / candidate: above 1 we are better.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import gc
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch

TIME, MEMORY = "time", "memory"
# What --device says of itself in benchmarks of work that is the CPU's wherever the model runs.
ONLY_REPORTED = "all is measured on the CPU; cuda also names the GPU in the report"
_UNITS = {TIME: (1e3, "ms"), MEMORY: (1 / 2**20, "MiB")}


@dataclass(frozen=True)
class Row:
    """One comparison.

    case:      what was done, such as "encoder/local/forward".
    baseline:  with what we compare, such as "grid_sample"; "none" where there is nothing to compare with.
    metric:    "time" in seconds or "memory" in bytes; smaller is better.
    candidate: our figure.
    reference: the baseline's, None where there is none.
    """

    case: str
    baseline: str
    metric: str
    candidate: float
    reference: float | None

    @property
    def ratio(self) -> float | None:
        """reference / candidate; None without a reference, or where we need nothing at all."""
        if self.reference is None or self.candidate <= 0:
            return None
        return self.reference / self.candidate


def argument_parser(
    description: str, *, device: str | None = "where it is measured", threads: bool = True
) -> argparse.ArgumentParser:
    """The flags that benchmarks share: --json and --only; --device and --threads where they change something.

    device: what --device does, None for none.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if device:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=device)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the report to this file")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="cases to run, such as 'encoder/*'"
    )
    if threads:
        parser.add_argument("--threads", type=int, help="CPU threads; default: PyTorch's own choice")
    return parser


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """--time_limit, for benchmarks that may run where time is short; see `Deadline`."""
    parser.add_argument(
        "--time_limit", type=float, metavar="SECONDS", default=math.inf, help="no case begins later"
    )


class Deadline:
    """Cases that would begin after `seconds` are left out, and `left_out` says so."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.left_out: dict[str, str] = {}

    def allows(self, case: str) -> bool:
        if time.monotonic() < self._end:
            return True
        self.left_out[case] = "no time left"
        return False


def wanted(case: str, patterns: Sequence[str]) -> bool:
    """Whether `--only` asks for this case; no pattern asks for all."""
    return not patterns or any(fnmatch.fnmatchcase(case, pattern) for pattern in patterns)


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    warmup: int = 1,
    synchronise: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each of `runs`, which take turns: A B C, A B C, ...

    synchronise: waits for the device, before and after each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + repeats):
        for name, run in runs.items():
            synchronise()
            started = time.perf_counter()
            run()
            synchronise()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Measured(NamedTuple):
    """What `in_own_process` saw.

    seconds: wall clock of the work.  cpu_seconds: of all its threads.
    peak_bytes: most memory held during it, above what was held before.  value: what it returned.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    value: Any


def in_own_process(
    work: Callable[..., Any],
    *arguments: Any,
    prepare: Callable[[], Any] | None = None,
    **keywords: Any,
) -> Measured:
    """Calls `work` in a fresh process and measures it there.

    Args:
        work: a function of a module, with arguments and result that can be pickled.
        prepare: is called first, unmeasured: imports that both sides need.

    Raises:
        RuntimeError: the process died, with its exit code (-9: out of memory, as a rule).
        Whatever `work` raises.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(sender, work, prepare, arguments, keywords))
    child.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"{work.__name__} died with exit code {child.exitcode}") from None
    child.join()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _measure(sender: Any, work: Any, prepare: Any, arguments: tuple, keywords: dict) -> None:
    try:
        if prepare is not None:
            prepare()
        release_free_memory()
        before = resident_bytes()
        reset_peak()
        started, cpu_started = time.perf_counter(), time.process_time()
        value = work(*arguments, **keywords)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        sender.send(Measured(seconds, cpu_seconds, max(peak_bytes() - before, 0), value))
    except Exception as error:
        sender.send(error)


def release_free_memory() -> None:
    """Gives back what the allocator keeps, in which the next allocations would go unseen (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes() -> int:
    """Memory that this process holds now (Linux)."""
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """The most that it held since `reset_peak` (Linux)."""
    return _status_bytes("VmHWM")


def private_bytes() -> int:
    """Memory of this process that no other process shares (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def reset_peak() -> None:
    """From now on `peak_bytes` counts anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def machine(device: str = "cpu") -> dict[str, Any]:
    """What it was measured on."""
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "command": " ".join(sys.argv),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "gpu_memory": properties.total_memory}
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def versions(*packages: str) -> dict[str, str]:
    """Python, PyTorch and the given packages; "absent" for one that is not installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def report(
    rows: Sequence[Row],
    *,
    device: str = "cpu",
    packages: Sequence[str] = (),
    json_path: Path | None = None,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Prints machine, versions and a table of the rows, writes them as JSON, and returns them.

    notes: further facts of the run, such as sizes of what was generated.
    """
    content = write_report(rows, device=device, packages=packages, json_path=json_path, notes=notes)
    for part in ("machine", "versions", "notes"):
        for key, value in content[part].items():
            print(f"{key}: {value}")
    print(table(rows))
    return content


def write_report(
    rows: Sequence[Row],
    *,
    device: str = "cpu",
    packages: Sequence[str] = (),
    json_path: Path | None = None,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`report` without a word: also for what is measured so far in a long run."""
    content: dict[str, Any] = {
        "machine": machine(device),
        "versions": versions(*packages),
        "notes": dict(notes or {}),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(content, indent=1) + "\n")
    return content


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, milliseconds and MiB."""
    lines = [
        "| case | baseline | metric | ours | theirs | ratio |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        scale, unit = _UNITS[row.metric]
        theirs = "" if row.reference is None else f"{row.reference * scale:.4g} {unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        ours = f"{row.candidate * scale:.4g} {unit}"
        lines.append(f"| {row.case} | {row.baseline} | {row.metric} | {ours} | {theirs} | {ratio} |")
    return "\n".join(lines)
