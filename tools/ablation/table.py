"""`table.json` and `table.md` of a grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tools.ablation.compare import METRICS, Finished, complete_seeds, difference, replicate_runs, summary
from tools.ablation.grid import Grid
from tools.ablation.plan import Run
from tools.tail_report.content import LEVEL
from util.errors import listed

# Runs that one note of the table names.
_MOST_NAMED = 4


def table_content(
    name: str, grid: Grid, runs: Sequence[Run], failed: Mapping[Run, str], replicates: int
) -> dict[str, Any]:
    """Every number of the table; metrics are 0..1, None where they are undefined.

    failed: why runs failed.
    """
    finished: Finished = {run: result for run in runs if (result := run.result()) is not None}
    replicas = replicate_runs(finished, replicates)
    seeds = {row: complete_seeds(row, grid.seeds, grid.fold_numbers, finished) for row in grid.rows}
    both = {(a, b): [seed for seed in seeds[a] if seed in seeds[b]] for a, b in grid.pairs}
    budgets = {run.row: run.budget for run in reversed(runs)}
    return {
        "grid": name,
        "images": grid.images,
        "seeds": list(grid.seeds),
        "folds": grid.folds,
        "baseline": grid.baseline,
        "bootstrap": {"replicates": replicates, "level": LEVEL},
        "rows": [
            {
                "name": row,
                "options": dict(grid.rows[row]),
                "steps": budgets[row].steps,
                "image_level_images": budgets[row].image_level,
                "seeds": seeds[row],
                "metrics": summary(row, seeds[row], finished),
                "seconds": _seconds(row, finished),
                "runs": [
                    {"seed": run.seed, "fold": run.fold, "metrics": dict(result.metrics)}
                    for run, result in finished.items()
                    if run.row == row
                ],
                "failed": [
                    {"name": run.name, "seed": run.seed, "fold": run.fold, "why": why}
                    for run, why in failed.items()
                    if run.row == row
                ],
            }
            for row in grid.rows
        ],
        "differences": [
            {
                "row": a,
                "to": b,
                "seeds": both[a, b],
                "metrics": difference(a, b, both[a, b], finished, replicas),
            }
            for a, b in grid.pairs
        ],
        "without_predictions": [run.name for run in finished if run not in replicas],
        "unfinished": [run.name for run in runs if run not in finished],
        "machines": _machines(finished),
    }


def _machines(finished: Finished) -> list[dict[str, Any]]:
    """Where the runs were computed, and in what: most runs first."""
    counts = Counter((r.device, r.precision, r.torch) for r in finished.values())
    return [
        {"device": device, "precision": precision, "torch": version, "runs": runs}
        for (device, precision, version), runs in counts.most_common()
    ]


def _seconds(row: str, finished: Finished) -> float | None:
    """Of training, the mean over runs."""
    found = [result.train_seconds for run, result in finished.items() if run.row == row]
    return sum(found) / len(found) if found else None


def markdown(content: Mapping[str, Any]) -> str:
    """The table for people, in points of 0..100."""
    seeds, level = len(content["seeds"]), round(100 * content["bootstrap"]["level"])
    folds = f" x {content['folds']} folds" if content["folds"] else ""
    if seeds == 1:
        number, spread, pooled = "1 seed", "", ""
    else:
        number, spread, pooled = f"{seeds} seeds", " Mean ± standard deviation over seeds.", ", seeds pooled"
    differences = {(d["row"], d["to"]): d["metrics"] for d in content["differences"]}
    lines = [f"# {content['grid']}", ""]
    lines += [
        f"{content['images']:,} training images a run, {number}{folds}.{spread} Differences: {level} % "
        f"interval of a paired bootstrap over validation images{pooled}.",
        *_computed(content["machines"]),
        "",
    ]
    header = [
        "",
        *METRICS,
        *(f"{name} - {content['baseline']}" for name in ("AP", "APr")),
        "train s",
        "seeds",
    ]
    rows = []
    for row in content["rows"]:
        found = differences.get((row["name"], content["baseline"]), {})
        cells = [_mean(row["metrics"][name]) for name in METRICS]
        cells += [_difference(found.get(name)) for name in ("AP", "APr")]
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        rows.append([row["name"], *cells, seconds, f"{len(row['seeds'])}/{seeds}"])
    lines += _grid_of(header, rows)
    others = [d for d in content["differences"] if d["to"] != content["baseline"]]
    if others:
        pairs = [
            [f"{d['row']} - {d['to']}", *(_difference(d["metrics"][name]) for name in METRICS)]
            for d in others
        ]
        lines += ["", *_grid_of(["", *METRICS], pairs)]
    lines += _notes(content)
    return "\n".join(lines) + "\n"


def _computed(machines: Sequence[Mapping[str, Any]]) -> list[str]:
    """In which precision and where; results of several machines differ by more than a part may give."""
    said = [
        f"{m['precision'] or 'unknown precision'} on {m['device'] or 'an unknown device'} "
        f"(torch {m['torch']}{', ' + str(m['runs']) + ' runs' if len(machines) > 1 else ''})"
        for m in machines
    ]
    return [f"Computed in {'; '.join(said)}."] if said else []


def _notes(content: Mapping[str, Any]) -> list[str]:
    notes = [
        f"- failed: {failed['name']}: {failed['why']}" for row in content["rows"] for failed in row["failed"]
    ]
    for key, what in (
        ("unfinished", "not finished"),
        ("without_predictions", "predictions are not in place, or another run's, so no interval"),
    ):
        if content[key]:
            notes.append(f"- {what}: {listed(content[key], _MOST_NAMED, '; ')}")
    return ["", *notes] if notes else []


def _mean(metric: Mapping[str, Any] | None) -> str:
    if metric is None or metric["mean"] is None:
        return "-"
    spread = "" if metric["sd"] is None else f" ± {100 * metric['sd']:.1f}"
    return f"{100 * metric['mean']:.1f}{spread}"


def _difference(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return ""
    if metric["interval"] is None:
        return f"{100 * metric['mean']:+.1f}"
    low, high = metric["interval"]
    return f"{100 * metric['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _grid_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(line)} |" for line in (header, rule, *rows)]
