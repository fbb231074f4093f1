"""Numbers of two runs, read from their files and compared."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.errors import UserError

# Quantity -> place -> number, None where it is not finite.
Numbers = dict[str, dict[str, float | None]]
# Read from each line of log.jsonl, with its losses and metrics. The rest is times and memory.
LOGGED = ("total", "grad_norm", "lr", "best_ap")


@dataclass(frozen=True)
class Row:
    """One quantity: how many numbers were compared, the largest relative difference, and its place."""

    quantity: str
    count: int
    difference: float
    place: str


def read_numbers(run: Path) -> Numbers:
    """The numbers of one run folder, whose checkpoint was evaluated into `run`/evaluated.

    Raises UserError for files that are missing or of another format.
    """
    try:
        return _logged(run / "log.jsonl") | _evaluated(run / "evaluated" / "eval")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run}: the files of this run have another format ({error!r})") from error


def _logged(log: Path) -> Numbers:
    numbers: Numbers = {}
    for entry in [json.loads(line) for line in _read(log).splitlines()]:
        mean = "mean of " if entry["kind"] == "epoch" else ""
        place = f"{mean}epoch {entry['epoch']}, step {entry['step']}"
        for name in LOGGED:
            if name in entry:
                numbers.setdefault(name, {})[place] = entry[name]
        for name, value in entry["losses"].items():
            numbers.setdefault(name, {})[place] = value
        for name, value in (entry.get("metrics") or {}).items():
            numbers.setdefault("metrics", {})[f"{name} after epoch {entry['epoch']}"] = value
    if "total" not in numbers:
        raise UserError(f"{log}: holds no losses")
    return numbers


def _evaluated(folder: Path) -> Numbers:
    metrics = {n: v for n, v in json.loads(_read(folder / "metrics.json")).items()}
    return {"metrics of --eval": metrics, **_predictions(json.loads(_read(folder / "predictions.json")))}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _predictions(entries: list[dict[str, Any]]) -> Numbers:
    """Scores and box coordinates (pixels), sorted within each image: near ties may trade places."""
    scores: dict[int, list[float]] = {}
    coordinates: dict[int, list[float]] = {}
    for entry in entries:
        scores.setdefault(entry["image_id"], []).append(entry["score"])
        coordinates.setdefault(entry["image_id"], []).extend(entry["bbox"])
    return {
        name: {
            f"image {image}, number {index} of {len(values)}": value
            for image, values in by_image.items()
            for index, value in enumerate(sorted(values), start=1)
        }
        for name, by_image in (("scores", scores), ("boxes", coordinates))
    }


def compare(a: Numbers, b: Numbers) -> list[Row]:
    """One row for each quantity of either run, in order of appearance.

    Differences are relative to the larger of two numbers; those of boxes to the largest coordinate. A number
    that only one run has, or that is finite in only one, differs infinitely.
    """
    rows = []
    for quantity in dict.fromkeys((*a, *b)):
        ours, theirs = a.get(quantity, {}), b.get(quantity, {})
        places = list(dict.fromkeys((*ours, *theirs)))
        sizes = [abs(v) for v in (*ours.values(), *theirs.values()) if v is not None]
        floor = max(sizes, default=0.0) if quantity == "boxes" else 0.0
        gaps = [_difference(p in ours, ours.get(p), p in theirs, theirs.get(p), floor) for p in places]
        largest = max(gaps, default=0.0)
        rows.append(Row(quantity, len(places), largest, places[gaps.index(largest)] if largest else ""))
    return rows


def _difference(in_a: bool, a: float | None, in_b: bool, b: float | None, floor: float) -> float:
    a, b = (x if x is not None and math.isfinite(x) else None for x in (a, b))
    if in_a != in_b or (a is None) != (b is None):
        return math.inf
    if a is None or b is None or a == b:
        return 0.0
    return abs(a - b) / max(abs(a), abs(b), floor)


def report(rows: dict[str, list[Row]], rtol: float) -> bool:
    """Prints the rows of each config and the verdict; returns whether all differences are within `rtol`."""
    for config, found in rows.items():
        for row in found:
            place = f"  at {row.place}" if row.place else ""
            print(f"{config:<8} {row.quantity:<20} {row.count:>6} numbers  {row.difference:.2e}{place}")
    verdict, same = _verdict([(config, row) for config, found in rows.items() for row in found], rtol)
    print(verdict)
    return same


def _verdict(rows: Iterable[tuple[str, Row]], rtol: float) -> tuple[str, bool]:
    rows = list(rows)
    config, worst = max(rows, key=lambda item: item[1].difference)
    beyond = [row for _, row in rows if row.difference > rtol]
    largest = f"largest relative difference {worst.difference:.2e}"
    if beyond:
        where = f"{config} {worst.quantity} at {worst.place}"
        return f"DIFFERENT: {len(beyond)} of {len(rows)} quantities, {largest}: {where}", False
    count = sum(row.count for _, row in rows)
    return f"same: {count} numbers" + (f", {largest}" if worst.difference else ""), True
