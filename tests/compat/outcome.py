"""The numbers that a stored checkpoint leads to: from the command line and the files that it writes alone.

A user's old checkpoint meets the same: `main.py`, checkpoint files and `log.jsonl`. No internals are
imported, so this file outlives their refactoring.
"""

import contextlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import main as program

CHECKPOINT = "checkpoint.pth"
STORED = f"{CHECKPOINT}.xz"
NUMBERS = "numbers.json"
SPLITS = {"train": 10, "val": 10}
# Relative. Other vector instructions move losses by up to 2e-6 (float32), sums of weights by 1e-7.
TOLERANCE = 1e-5
# Losses below this are compared absolutely: a difference of logarithms leaves few digits of a small one.
SMALL_LOSS = 0.1
# The true gradient of these is zero (a normalization or a softmax cancels them): AdamW follows rounding.
UNDETERMINED = re.compile(r"neck\.projections\.\d+\.0\.bias|self_attn\.in_proj_bias")


def command(*words: Any) -> str:
    """Runs `python main.py WORDS` on the CPU in this process; returns its standard output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = program.main([*("--device", "cpu", "--num_workers", "0"), *(str(word) for word in words)])
    assert status == 0, f"main.py ended with status {status}: {' '.join(str(word) for word in words)}"
    return output.getvalue()


def follow_up(checkpoint: Path, data: Path, clip: tuple[Path, Path], folder: Path) -> dict[str, Any]:
    """Evaluates `checkpoint`, then resumes it for one more epoch. Writes into `folder`.

    clip: the JSON and the weights of the teacher, which a checkpoint does not hold.
    """
    evaluated = command(
        "--eval", "--resume", checkpoint, "--data_path", data, "--output_dir", folder / "eval"
    )
    words = ("--resume", checkpoint, "--data_path", data, "--output_dir", folder / "resumed")
    paths = (f"clip_model={clip[0]}", f"clip_pretrained={clip[1]}", f"text_cache_dir={folder}")
    trained = command(*words, "--options", *paths, "epochs=2")
    content = torch.load(folder / "resumed" / CHECKPOINT, map_location="cpu", weights_only=True)
    log = [json.loads(line) for line in (folder / "resumed" / "log.jsonl").read_text().splitlines()]
    kept = ("kind", "epoch", "step", "lr", "total", "grad_norm", "losses")
    return {
        "eval": metrics(evaluated),
        "resumed_eval": metrics(trained),
        "best_ap": log[-1]["best_ap"],
        "log": [{key: entry[key] for key in kept if key in entry} for entry in log],
        "optimizer_steps": sorted({float(step) for step in _entries(content["optimizer"], "step")}),
        "weights": {name: _sums(tensor) for name, tensor in content["model"].items()},
        "average": {name: _sums(_find(content["ema"], name)) for name in content["model"]},
    }


def metrics(printed: str) -> dict[str, str]:
    """The table that `main.py` prints: name -> the digits as they stand there; of an undefined metric those
    that earlier revisions printed."""
    rows = [line.split() for line in printed.splitlines()]
    return {
        row[0]: row[1] if row[1] != "-" else "-1.0000"
        for row in rows
        if len(row) == 2 and row[0].startswith("A")
    }


def write_numbers(path: Path, numbers: Mapping[str, Any]) -> None:
    """JSON with one line for each top-level key."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items())
    path.write_text(f"{{\n{lines}\n}}\n")


def loss_differences(found: list[dict], stored: list[dict]) -> list[str]:
    """One line for each number of `log.jsonl` that differs by more than rounding."""
    lines = [] if len(found) == len(stored) else [f"{len(found)} log entries, stored {len(stored)}"]
    for index, (ours, theirs) in enumerate(zip(found, stored, strict=False)):
        ours, theirs = ({**entry, **entry["losses"]} for entry in (ours, theirs))
        for name in sorted((ours.keys() | theirs.keys()) - {"losses"}):
            a, b = ours.get(name), theirs.get(name)
            if not (a == b or (_numbers(a, b) and abs(a - b) <= TOLERANCE * max(abs(b), SMALL_LOSS))):
                lines.append(f"log entry {index}, {name}: {a}, stored {b}")
    return lines


def weight_differences(found: dict[str, list[float]], stored: dict[str, list[float]]) -> list[str]:
    """One line for each tensor whose sums (see `_sums`) differ by more than rounding."""
    lines = []
    for name in sorted(found.keys() | stored.keys()):
        a, b = found.get(name), stored.get(name)
        if a is None or b is None:
            lines.append(f"{name}: {a}, stored {b}")
        elif not UNDETERMINED.search(name):
            limit = TOLERANCE * b[1]
            if not all(abs(x - y) <= limit for x, y in zip(a, b, strict=True)):
                lines.append(f"{name}: {a}, stored {b}")
    return lines


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _entries(content: Any, name: str) -> Iterator[Any]:
    """All values called `name`, at any depth: revisions may nest them differently."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key == name:
                yield value
            else:
                yield from _entries(value, name)


def _find(content: Any, name: str) -> torch.Tensor:
    """The one tensor whose dotted path ends with `name`."""
    found = [t for place, t in _tensors(content) if f".{place}".endswith(f".{name}")]
    assert len(found) == 1, f"the average has {len(found)} tensors called {name}"
    return found[0]


def _tensors(content: Any, where: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield where, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{where}.{key}" if where else str(key))


def _sums(tensor: torch.Tensor) -> list[float]:
    """[sum, sum of absolute values], in float64."""
    return [tensor.double().sum().item(), tensor.double().abs().sum().item()]
