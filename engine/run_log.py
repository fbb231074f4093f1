"""`log.jsonl`, the console lines and the trackers of one run. Rank 0 only; other ranks have none.

Each line of `log.jsonl` is one object. `kind` is 'step' (each log interval) or 'epoch'; `epoch` counts
from 1 and `step` counts optimizer steps of the whole run. Numbers that are not finite are null.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.trackers import Trackers
from util import distributed
from util.files import atomic_write

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


class RunLog:
    """Appends objects to a file, and gives their numbers to trackers. `with` closes it.

    path: the file.
    keep_epochs: on resume, entries of later epochs (of a run that went on after its checkpoint) and a half
        written last line are dropped, so that the file reads as one run.
    trackers: none by default.
    """

    def __init__(self, path: Path, keep_epochs: int | None = None, trackers: Trackers | None = None) -> None:
        self.path = path
        if keep_epochs is not None and path.exists():
            kept = [entry for entry in read_log(path) if entry.get("epoch", 0) <= keep_epochs]
            with atomic_write(path) as file:
                file.writelines(json.dumps(entry) + "\n" for entry in kept)
        self._trackers = trackers or Trackers({})

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
            ("val", entry["metrics"] or {}),
        ):
            self._trackers.log(group, numbers, entry["step"], entry["epoch"])

    def close(self, failed: bool = False) -> None:
        """Ends the run in its trackers. failed: by an error or by the user."""
        self._trackers.finish(failed)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def _append(self, kind: str, entry: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite({"kind": kind, **entry})) + "\n")


def read_log(path: Path) -> list[dict]:
    """The objects of a `log.jsonl`, without a half-written last line."""
    entries = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


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


def progress_bar(title: str, total: int) -> tqdm:
    """A bar with the remaining time, on a terminal and on rank 0 only; `with` closes it."""
    hidden = not (distributed.is_main() and sys.stderr.isatty())
    return tqdm(total=total, desc=title, disable=hidden, leave=False, dynamic_ncols=True)


def duration(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
