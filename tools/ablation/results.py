"""What is kept of a finished run: one small file, without its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from engine.run_directory import RunDirectory, revision
from engine.run_log import read_log
from util.errors import UserError, first_line
from util.files import atomic_write
from util.hardware import device_name
from util.precision import choose_precision


@dataclass(frozen=True)
class Point:
    """One evaluation of a run. images: seen so far.  metrics: 0..1, -1 where there is no ground truth."""

    images: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ClassScore:
    """frequency: 'r', 'c', 'f' or ''.  ap: 0..1, None without ground truth."""

    name: str
    frequency: str
    ap: float | None


@dataclass(frozen=True)
class Result:
    """config: every key.  fingerprint: of the validation annotations.
    trained_on: fingerprint of those that it was trained on; empty in older files.
    images_at: images seen at the end of each epoch.  image_level: those of the image-level stream among them.
    curve: every evaluation; the last is the result.
    train_seconds, eval_seconds: over all starts of the run.
    revision: of the code; 'unknown' outside of git.  torch: its version.
    device: by name.  precision: such as 'bfloat16'. Both are of the last start, and empty in older files."""

    row: str
    seed: int
    fold: int
    config: Mapping[str, Any]
    fingerprint: str
    steps: int
    images_at: tuple[int, ...]
    image_level: int
    curve: tuple[Point, ...]
    classes: tuple[ClassScore, ...]
    train_seconds: float
    eval_seconds: float
    revision: str
    torch: str
    device: str = ""
    precision: str = ""
    trained_on: str = ""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of the last evaluation."""
        return self.curve[-1].metrics

    def write(self, path: Path) -> None:
        """Writes the file. Raises UserError where that is not possible."""
        with atomic_write(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n")

    @classmethod
    def read(cls, path: Path) -> Result | None:
        """None where there is no file. Raises UserError for a damaged one."""
        if not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.MsgspecError, OSError, RecursionError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)}); remove it") from None


class _Evaluated(msgspec.Struct):
    """What is read of `eval/result.json`."""

    metrics: dict[str, float]
    classes: tuple[ClassScore, ...]


def read_run(folder: RunDirectory, identity: Mapping[str, Any], device: torch.device) -> Result:
    """The result of a run that has ended well.

    identity: the fields of `Result` that were known before it ran.  device: where it ran.
    Raises UserError where it is not at its last step, or not evaluated there.
    """
    steps, images_at = identity["steps"], identity["images_at"]
    entries = read_log(folder.log) if folder.log.is_file() else []
    epochs = [entry for entry in entries if entry.get("kind") == "epoch"]
    if not epochs or epochs[-1].get("step") != steps or epochs[-1].get("metrics") is None:
        at = epochs[-1].get("step") if epochs else 0
        raise UserError(f"{folder.path}: ended at step {at} of {steps}, or without an evaluation")
    path = folder.path / "eval" / "result.json"
    try:
        evaluated = msgspec.json.decode(path.read_bytes(), type=_Evaluated)
    except (msgspec.MsgspecError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from None
    if evaluated.metrics != epochs[-1]["metrics"]:
        raise UserError(f"{path}: is not the evaluation of step {steps}")
    return Result(
        **identity,
        curve=tuple(
            Point(images_at[entry["epoch"] - 1], entry["metrics"]) for entry in epochs if entry.get("metrics")
        ),
        classes=evaluated.classes,
        train_seconds=sum(entry["train_seconds"] for entry in epochs),
        eval_seconds=sum(entry["eval_seconds"] for entry in epochs),
        revision=revision(),
        torch=str(torch.__version__),
        device=device_name(device),
        precision=_precision(identity["config"], device),
    )


def _precision(config: Mapping[str, Any], device: torch.device) -> str:
    """What `engine/build.py` chose."""
    dtype = choose_precision(config["amp"], config["amp_dtype"], device).dtype
    return str(dtype or torch.float32).removeprefix("torch.")
