"""A whole training step of the paper's model: how long, how much memory, how many launches, and of what.

    python benchmarks/train_step.py [--device cpu|cuda] [--previous FOLDER] [--json OUT] [--plot PNG]

The step is the product's (engine/train_epoch.py) on ResNet-50, 1,203 classes, teacher, denoising and
federated loss as config/RichSem/richsem_4scale.py has them, with random weights and generated batches of 2
images and 10 boxes each. Cases:

    step/480x640/cpu/fp32    both sides in float32
    step/480x640/cpu/best    the settings that ours chooses by itself on this CPU, against the baselines in
                             float32, and against `previous` in bfloat16 with channels last
    criterion/cpu            heads, matching and losses with their backward pass, on recorded decoder outputs
    step/800x1333/cuda/bs2, .../bs8   the settings that ours chooses
    .../bs2/teacher          the same step against one without a teacher
    .../bs2/compiled         with compiled layers (torch_compile), against the same step without

Baselines: `previous`, revision 18081fd, from git or from `--previous`; `transformers`, the Deformable DETR of
that package (pip install transformers), two-stage with box refinement: without denoising and teacher, so it
does less. Each side is a process of its own, as two revisions have the same package names; they take turns
step by step, and each has the cores to itself. Rows: `time`, median seconds of a step; `memory`, the most
that the first step held above what was there before (resident size, or the GPU's allocations). CPU seconds of
all threads, launches, reads and the time of each part are in the notes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.protocol import (
    MEMORY,
    TIME,
    Deadline,
    Row,
    add_time_limit,
    argument_parser,
    report,
    wanted,
    write_report,
)
from benchmarks.sides import ROOT, Side, previous_tree, started, take_turns, with_options
from benchmarks.whole_step.spec import Spec
from util.errors import UserError, run_command
from util.precision import choose_precision

CPU_SIZE, CUDA_SIZE = (480, 640), (800, 1333)
OURS = "ours"
FLOAT32 = {"amp": False, "channels_last": False}


@dataclass(frozen=True)
class Case:
    """name: of the rows.  sides: by name, `ours` among them; the others are the baselines."""

    name: str
    sides: dict[str, Spec]


def cases(args: argparse.Namespace, previous: Path) -> list[Case]:
    """All of a device."""
    cuda = args.device == "cuda"
    height, width = (64, 96) if args.small else CUDA_SIZE if cuda else CPU_SIZE
    ours = Spec(
        "richsem",
        "step",
        str(ROOT),
        height,
        width,
        device=args.device,
        threads=args.threads or 0,
        small=args.small,
    )
    before = replace(ours, tree=str(previous))
    theirs = {"transformers": replace(ours, side="transformers")} if has_transformers() else {}
    if cuda:
        return _on_cuda(ours, before, theirs)
    return _on_cpu(ours, before, theirs)


def _on_cpu(ours: Spec, before: Spec, theirs: dict[str, Spec]) -> list[Case]:
    in_float32 = {OURS: with_options(ours, **FLOAT32), "previous": with_options(before, **FLOAT32)}
    best = {OURS: ours, "previous": with_options(before, **FLOAT32)}
    sixteen = choose_precision("auto", "bfloat16", torch.device("cpu")).dtype
    if sixteen is not None:
        best["previous bfloat16 channels-last"] = with_options(before, amp=True, channels_last=True)
        in_sixteen = str(sixteen).removeprefix("torch.")
        best |= {f"{name} {in_sixteen}": replace(s, autocast=in_sixteen) for name, s in theirs.items()}
    criterion = {name: replace(side, what="criterion") for name, side in in_float32.items()}
    return [
        Case("step/480x640/cpu/fp32", in_float32 | theirs),
        Case("step/480x640/cpu/best", best),
        Case("criterion/cpu", criterion),
    ]


def _on_cuda(ours: Spec, before: Spec, theirs: dict[str, Spec]) -> list[Case]:
    theirs = {f"{name} bfloat16": replace(s, autocast="bfloat16") for name, s in theirs.items()}
    sixteen = with_options(before, amp=True, channels_last=True)
    two = {OURS: ours, "previous bfloat16 channels-last": sixteen} | theirs
    eight = {name: replace(side, batch=8) for name, side in two.items()}
    compiled = with_options(ours, torch_compile=True)
    return [
        Case("step/800x1333/cuda/bs2", two),
        Case("step/800x1333/cuda/bs8", eight),
        Case("step/800x1333/cuda/bs2/teacher", {OURS: ours, "no teacher": replace(ours, teacher=False)}),
        Case("step/800x1333/cuda/bs2/compiled", {OURS: compiled, "eager": ours}),
    ]


def has_transformers() -> bool:
    return importlib.util.find_spec("transformers") is not None


def measure(case: Case, repeats: int) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a case, and what each side said besides."""
    with started(case.sides) as sides:
        _check(sides)
        taken = take_turns(sides, repeats)
        notes = {name: _notes(side, taken[name]) for name, side in sides.items()}
    rows = []
    for name in case.sides:
        if name != OURS:
            rows.append(Row(case.name, name, TIME, taken[OURS]["seconds"], taken[name]["seconds"]))
            memory = (sides[side].first["bytes"] for side in (OURS, name))
            rows.append(Row(case.name, name, MEMORY, *memory))
    return rows, {f"{case.name}: {name}": note for name, note in notes.items()}


def _check(sides: dict[str, Side]) -> None:
    for name, side in sides.items():
        if not torch.tensor(side.first["value"]).isfinite():
            raise RuntimeError(f"{name}: its first step gives {side.first['value']}")


def _notes(side: Side, taken: dict[str, float]) -> dict[str, Any]:
    images = side.spec.batch / taken["seconds"]
    milliseconds = {name: round(1e3 * seconds, 1) for name, seconds in side.ask("parts").items()}
    return {
        "precision": side.first["precision"],
        "first loss": side.first["value"],
        "cpu_seconds": round(taken["cpu_seconds"], 3),
        "images a second": round(images, 2),
        "ms of each part": milliseconds,
        **side.ask("counts"),
    }


def draw(notes: dict[str, dict[str, Any]], path: Path) -> None:
    """A bar for each side of each case, in parts; forward parts first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = {name: note["ms of each part"] for name, note in notes.items()}
    # Of a side whose modules have other names only the whole is known.
    bars = {name: bar for name, bar in bars.items() if len(bar) > 3}
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    colours = pyplot.get_cmap("tab20")(torch.linspace(0, 1, len(parts)).numpy())
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + 0.6 * len(bars)))
    left = [0.0] * len(bars)
    for part, colour in zip(parts, colours, strict=True):
        lengths = [bar.get(part, 0.0) for bar in bars.values()]
        axes.barh(list(bars), lengths, left=left, color=colour, label=part)
        left = [a + b for a, b in zip(left, lengths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of one step")
    axes.legend(ncols=5, fontsize="small", loc="upper center", bbox_to_anchor=(0.35, -0.25), frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--previous", type=Path, metavar="FOLDER", help="files of 18081fd, in place of git")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each side; default: 5")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw where the time goes")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the benchmark")
    add_time_limit(parser)
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no GPU")
    deadline = Deadline(args.time_limit)
    rows: list[Row] = []
    sides: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    notes: dict[str, Any] = {"batch": "2 images or as the case says, 10 boxes each, random weights"}
    if args.small:
        notes["small"] = "a tiny model at 64x96: these figures say nothing"
    where: dict[str, Any] = {
        "device": args.device,
        "packages": ("timm", "transformers"),
        "json_path": args.json,
    }
    if not has_transformers():
        left_out["transformers"] = "not installed"
    with previous_tree(args.previous) as previous:
        chosen = [case for case in cases(args, previous) if wanted(case.name, args.only)]
        if not chosen:
            raise UserError(f"--only {' '.join(args.only)}: no such case on {args.device}")
        for case in chosen:
            if not deadline.allows(case.name):
                continue
            print(f"{case.name}: {', '.join(case.sides)}", file=sys.stderr, flush=True)
            more, said = measure(case, args.repeats)
            rows, sides = rows + more, sides | said
            # What follows takes minutes, and may be cut off.
            write_report(rows, notes=notes | sides, **where)
    if args.plot is not None:
        draw(sides, args.plot)
    report(rows, notes=notes | sides | {"left out": left_out | deadline.left_out}, **where)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
