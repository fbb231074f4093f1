"""`log.jsonl`, the console lines and the trackers of one run. Rank 0 only; other ranks have none.

Each line of `log.jsonl` is one object. `kind` is 'step' (each log interval) or 'epoch'; `epoch` counts
from 1 and `step` counts optimizer steps of the whole run. Numbers that are not finite are null.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.trackers import Trackers
from util import distributed
from util.files import atomic_path

_log = logging.getLogger(__name__)

# Name of a group in the console line -> what marks a loss name as its member; the first that fits counts.
LOSS_GROUPS = (
    ("denoising", ("_dn",)),
    ("distill", ("distill",)),
    ("class", ("loss_ce", "class")),
    ("giou", ("giou",)),
    ("box", ("bbox", "box", "l1")),
)
_ORDER = ("class", "box", "giou", "distill", "denoising")


@dataclass(frozen=True)
class LogPosition:
    """Where a run goes on, as its checkpoint counts.

    epochs: finished.  iteration: batches of the next one that are done.  lines: epochs that have their line,
        one less than `epochs` while an evaluation is due.
    """

    epochs: int = 0
    iteration: int = 0
    lines: int = 0

    def covers(self, entry: Mapping[str, Any]) -> bool:
        """Whether the entry was logged before; one that says nothing of its place was."""
        epoch, iteration = entry.get("epoch", 0), entry.get("iteration", 0)
        if entry.get("kind") == "epoch":
            return epoch <= self.lines
        return (
            (epoch, iteration) <= (self.epochs + 1, self.iteration)
            if self.iteration
            else epoch <= self.epochs
        )


class RunLog:
    """Appends objects to a file, and gives their numbers to trackers. `with` closes it.

    path: the file. One that cannot be written is one warning; training goes on.
    position: entries beyond it (of a run that went on after its checkpoint) and a half-written last line are
        moved to the file of the same name with `.later`, so that the log reads as one run. Damaged lines
        before it stay as they are. None leaves the file alone.
    trackers: none by default.
    """

    def __init__(
        self, path: Path, position: LogPosition | None = None, trackers: Trackers | None = None
    ) -> None:
        self.path = path
        self._failed = False
        self._trackers = trackers or Trackers({})
        if position is not None:
            self.go_back(position)

    def go_back(self, position: LogPosition) -> None:
        """Sets aside what is beyond `position`."""
        if self.path.exists():
            with self._warned():
                _set_aside(self.path, position)

    def step(self, entry: Mapping[str, Any], line: str) -> None:
        """One log interval: `entry` for the file, `line` for people."""
        self._append("step", entry)
        _log.info(line)
        numbers = {"total": entry["total"], **entry["losses"]}
        numbers |= {"lr": entry["lr"], "grad_norm": entry["grad_norm"]}
        self._trackers.log("train", numbers, entry["step"], entry["epoch"])

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """The end of an epoch: mean losses, and metrics where it was evaluated."""
        self._append("epoch", entry)
        for group, numbers in (
            ("epoch", {"total": entry["total"], **entry["losses"]}),
            # Trackers would average and plot the -1 of an undefined metric.
            ("val", {name: value for name, value in (entry["metrics"] or {}).items() if value >= 0}),
        ):
            self._trackers.log(group, numbers, entry["step"], entry["epoch"])

    def sync(self) -> None:
        """Waits until the lines are on the disk: before a checkpoint that counts on them."""
        if self.path.exists():
            with self._warned(), open(self.path, "ab") as file:
                os.fsync(file.fileno())

    def close(self, failed: bool = False) -> None:
        """Ends the run in its trackers. failed: by an error or by the user."""
        self._trackers.finish(failed)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def _append(self, kind: str, entry: Mapping[str, Any]) -> None:
        line = json.dumps(_finite({"kind": kind, **entry})) + "\n"
        with self._warned(), open(self.path, "ab", buffering=0) as file:
            start = file.tell()
            try:
                written = file.write(line.encode())
                if written < len(line):  # so much room was left
                    file.write(line[written:].encode())
            except OSError:
                # Half a line would spoil the next one too.
                with suppress(OSError):
                    file.truncate(start)
                raise

    @contextmanager
    def _warned(self) -> Iterator[None]:
        """Training does not end because its log cannot be written."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning(
                    "%s: cannot be written (%s); training goes on, lines are missing",
                    self.path,
                    error.strerror,
                )


def read_log(path: Path) -> list[dict]:
    """The objects of a `log.jsonl`, without lines that are damaged or half written."""
    return [entry for line in _lines(path) if (entry := _entry(line)) is not None]


def _lines(path: Path) -> list[bytes]:
    return [line + b"\n" for line in Path(path).read_bytes().split(b"\n") if line]


def _entry(line: bytes) -> dict | None:
    """The object of a line; None where it is damaged."""
    try:
        entry = json.loads(line.decode("utf-8"))
        places = [entry.get(name, 0) for name in ("epoch", "iteration")]
    except (ValueError, RecursionError, AttributeError):
        return None
    return entry if all(isinstance(place, int) for place in places) else None


def _set_aside(path: Path, position: LogPosition) -> None:
    """Moves what is beyond `position`, and whatever follows it, out of the file. Raises OSError."""
    whole = path.read_bytes().endswith(b"\n")
    kept: list[bytes] = []
    later: list[bytes] = []
    lines = _lines(path)
    damaged = 0
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None:
            torn = number == len(lines) and not whole
            damaged += not (torn or later)
            (later if torn or later else kept).append(line)
        else:
            (kept if position.covers(entry) else later).append(line)
    if damaged:
        _log.warning("%s: %d damaged lines stay as they are", path, damaged)
    if not (later or (lines and not whole)):
        return
    if later:
        with open(path.with_name(path.name + ".later"), "ab") as file:
            file.writelines(later)
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(kept))


def loss_groups(losses: Mapping[str, float]) -> dict[str, float]:
    """The named losses, unweighted, added up to a handful: class, box, giou, distill, denoising.

    Any other loss is summed over layers under its own name: 'loss_new_0' and 'loss_new' give 'new'.
    """
    groups: dict[str, float] = {}
    for name, value in losses.items():
        group = next((group for group, marks in LOSS_GROUPS if any(mark in name for mark in marks)), None)
        group = group or re.sub(r"(_interm|_\d+)$", "", name.removeprefix("loss_"))
        groups[group] = groups.get(group, 0.0) + value
    known = {name: groups.pop(name) for name in _ORDER if name in groups}
    return {**known, **groups}


def step_line(entry: Mapping[str, Any], epochs: int, iterations: int) -> str:
    """The one readable line of a log interval."""
    parts = [f"epoch {entry['epoch']}/{epochs} {entry['iteration']:>{len(str(iterations))}}/{iterations}"]
    parts.append(f"total {entry['total']:.3f}")
    parts += [f"{name} {value:.3f}" for name, value in loss_groups(entry["losses"]).items()]
    parts.append(f"lr {entry['lr']:.1e}  grad {entry['grad_norm']:.2f}")
    parts.append(f"{entry['seconds']:.3f} s/it (data {entry['data_seconds']:.3f})")
    parts.append(f"{entry['memory_bytes'] / 2**30:.2f} GiB")
    parts.append(f"eta {duration(entry['eta_seconds'])}")
    return "  ".join(parts)


def progress_bar(title: str, total: int, done: int = 0) -> tqdm:
    """A bar with the remaining time, on a terminal and on rank 0 only; `with` closes it."""
    hidden = not (distributed.is_main() and sys.stderr.isatty())
    return tqdm(total=total, initial=done, desc=title, disable=hidden, leave=False, dynamic_ncols=True)


def duration(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
