"""Checks on a machine with a GPU, below 9 minutes: build, tests, benchmarks, a short training, sanitizer.

    bash scripts/gpu_check.sh [--dry_run] [--only STEP ...] [--wheels FOLDER] [--previous FOLDER]

Every step has a time limit and runs even if others failed; steps after the 9th minute are left out. Writes
FOLDER/DATE_GPU.json (machine, steps, the benchmarks' rows as of benchmarks/protocol.py, what was left out and
why) and DATE_GPU.md; `--only` runs what an earlier call left out. Status 0 when all steps passed, 1 when not,
2 when there is no GPU.

Baselines that are not installed come from `--wheels` (a folder of wheels, where the machine has no network:
`pip download --no-deps deformops==3.0.1 transformers tokenizers`); the revision before the training step was
made faster comes from git, or from `--previous`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import Row, machine, table, versions
from models.dino.ops import compiler

ROOT = Path(__file__).resolve().parents[1]
# Seconds for everything; a step gets at most what is left of them.
TOTAL = 520
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
BENCHMARKS = ("train_step", "inference", "ms_deform_attn")


@dataclass(frozen=True)
class Step:
    """One command. limit: seconds.  skip_reason: why it cannot run here, or ''."""

    name: str
    command: list[str]
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    skip_reason: str = ""


@dataclass(frozen=True)
class Outcome:
    name: str
    state: str
    seconds: float
    detail: str


def steps(
    device: str, work: Path, *, small: bool, wheels: Path | None = None, previous: Path | None = None
) -> list[Step]:
    """The steps in order, what matters most first.

    work: a scratch folder, to which each benchmark writes NAME.json.  wheels, previous: as the flags.
    """
    python = sys.executable
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    kind = "gpu" if device == "cuda" else "not gpu"
    required = {"RICHSEM_OPS": "required"}
    quick = ["tests/models/dino/ops/test_module.py"]
    images = ["--train", "16", "--val", "4"] if small else ["--train", "400", "--val", "40"]
    teacher = ROOT / "config/quickstart/mini_clip"
    training = [python, "main.py", "-c", "config/quickstart/richsem_mini.py", "--device", device]
    training += ["--data_path", str(work / "data"), "--output_dir", str(work / "run"), "--num_workers", "2"]
    training += ["--options", "epochs=1", "log_interval=1", f"clip_model={teacher}.json"]
    training += [f"clip_pretrained={teacher}.safetensors"]
    return [
        *_wheels_step(work, wheels),
        Step("build", [python, "-m", "models.dino.ops"], 180, required),
        Step("tests", [*pytest, "-m", kind, *(quick if small else ["tests"])], 100, required),
        *benchmark_steps(device, work, small=small, wheels=wheels, previous=previous),
        Step("data", [python, "tools/make_mini_lvis.py", "--output", str(work / "data"), *images], 60),
        Step("training", training, 90, required),
        *sanitizer_steps(device, [*pytest, "-m", "gpu", "tests/models/dino/ops/test_gpu.py"], required),
    ]


def _wheels_step(work: Path, wheels: Path | None) -> list[Step]:
    """Unpacks the wheels where the benchmarks look for them."""
    if wheels is None:
        return []
    options = ["--no-index", "--no-deps", "--no-compile", "--target", str(work / "site")]
    files = sorted(map(str, wheels.resolve().glob("*.whl")))
    return [Step("wheels", [sys.executable, "-m", "pip", "install", "--quiet", *options, *files], 60)]


def benchmark_steps(
    device: str, work: Path, *, small: bool, wheels: Path | None, previous: Path | None
) -> list[Step]:
    """A training step, inference, and the op by itself."""
    environment = {"RICHSEM_OPS": "required"}
    if wheels is not None:
        there = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(work / "site"), *([there] if there else [])])
    whole = ["--small", "--repeats", "1"] if small else ["--repeats", "10"]
    if previous is not None:
        whole += ["--previous", str(previous.resolve())]
    # A benchmark that is killed at its limit loses the case it was in, or all, so it begins none late.
    step = ["--only", "step/480x640/cpu/fp32"] if small else ["--time_limit", "100"]
    inference = ["--only", "inference/480x640/cpu/fp32"] if small else []
    op = ["--only", "mini_decoder/local/forward", "--repeats", "2"] if small else ["--time_limit", "100"]
    options = {
        "train_step": (150, [*whole, *step]),
        "inference": (60, [*whole, *inference]),
        "ms_deform_attn": (120, op),
    }
    return [
        Step(
            name,
            [sys.executable, f"benchmarks/{name}.py", "--device", device]
            + ["--json", str(work / f"{name}.json"), *more],
            limit,
            environment,
        )
        for name, (limit, more) in options.items()
    ]


def find_sanitizer() -> str | None:
    """compute-sanitizer on the PATH, or beside the nvcc that builds the kernels."""
    found = shutil.which("compute-sanitizer")
    if found:
        return found
    try:
        return shutil.which("compute-sanitizer", path=str(compiler.find_nvcc().parent))
    except compiler.BuildError:
        return None


def sanitizer_steps(device: str, pytest: list[str], required: dict[str, str]) -> list[Step]:
    """memcheck on nearly all tests of `pytest`; racecheck and synccheck, which are slower, on a few."""
    sanitizer = find_sanitizer()
    skip_reason = "" if sanitizer and device == "cuda" else "no compute-sanitizer or no GPU"
    # One allocation per tensor, so that an access out of bounds does not fall into another tensor. Graphs
    # cannot be captured then, as capture forbids allocation.
    memcheck = {**required, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    few = "against_float64 and float32 and (encoder or masked)"
    return [
        Step(
            tool,
            [sanitizer or "compute-sanitizer", "--error-exitcode", "9", "--tool", tool, *pytest, "-k", cases],
            limit,
            environment,
            skip_reason,
        )
        for tool, cases, limit, environment in (
            ("memcheck", "not in_a_graph", 150, memcheck),
            ("racecheck", few, 60, required),
            ("synccheck", few, 60, required),
        )
    ]


def run_step(step: Step, seconds_left: float, log: Path) -> Outcome:
    """Runs a step within its limit and the time left. Its output goes to `log`; the last line is kept."""
    if step.skip_reason:
        return Outcome(step.name, SKIPPED, 0.0, step.skip_reason)
    if seconds_left < 5:
        return Outcome(step.name, SKIPPED, 0.0, "no time left")
    started = time.monotonic()
    with log.open("w") as file:
        try:
            code = subprocess.run(
                step.command,
                cwd=ROOT,
                env={**os.environ, **step.environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=min(step.limit, seconds_left),
                check=False,
            ).returncode
            state = PASSED if code == 0 else FAILED
        except subprocess.TimeoutExpired as error:
            state = FAILED
            file.write(f"\nstopped after {error.timeout:.0f} s\n")
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return Outcome(step.name, state, round(time.monotonic() - started, 1), (lines or ["no output"])[-1][:200])


def left_out(outcomes: Sequence[Outcome], measured: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """What was not done or not compared with, and why."""
    found = {outcome.name: outcome.detail for outcome in outcomes if outcome.state == SKIPPED}
    for benchmark, content in measured.items():
        for opponent, why in content["notes"].get("left out", {}).items():
            found[f"{benchmark} beside {opponent}"] = why
    for outcome in outcomes:
        if outcome.name in BENCHMARKS and outcome.state == FAILED and outcome.name not in measured:
            found[f"rows of {outcome.name}"] = outcome.detail
    return found


def write_report(folder: Path, device: str, outcomes: Sequence[Outcome], work: Path) -> Path:
    """Both files, with what the benchmarks wrote into `work`; returns the JSON's path."""
    files = {name: work / f"{name}.json" for name in BENCHMARKS}
    measured = {name: json.loads(path.read_text()) for name, path in files.items() if path.is_file()}
    content: dict[str, Any] = {
        "machine": machine(device),
        "versions": versions("transformers", "deformops"),
        "steps": [asdict(outcome) for outcome in outcomes],
        "left_out": left_out(outcomes, measured),
        "notes": {f"{name}: {key}": v for name, m in measured.items() for key, v in m["notes"].items()},
        "rows": [row for m in measured.values() for row in m["rows"]],
    }
    name = torch.cuda.get_device_name(0) if device == "cuda" else "dry-run"
    stem = f"{date.today().isoformat()}_{re.sub(r'[^A-Za-z0-9]+', '-', name)}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    lines = [f"# {name}", "", "`bash scripts/gpu_check.sh`", ""]
    lines += [f"- {key}: {value}" for part in ("machine", "versions") for key, value in content[part].items()]
    lines += ["", "| step | state | seconds | last line |", "| --- | --- | ---: | --- |"]
    lines += [f"| {o.name} | {o.state} | {o.seconds} | `{o.detail.replace('|', '/')}` |" for o in outcomes]
    lines += ["", "Left out:", ""]
    lines += [f"- {what}: {why}" for what, why in content["left_out"].items()] or ["- nothing"]
    keys = ("case", "baseline", "metric", "candidate", "reference")
    rows = [Row(**{key: row[key] for key in keys}) for row in content["rows"]]
    lines += ["", table(rows), ""] + [f"- {key}: {value}" for key, value in content["notes"].items()]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry_run", action="store_true", help="walk through the steps on the CPU, small")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these alone (and `wheels`)")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="of packages to compare with")
    parser.add_argument("--previous", type=Path, metavar="FOLDER", help="files of 18081fd, in place of git")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("no GPU here: nothing was checked (--dry_run walks through the steps on the CPU)")
        return 2
    device = "cpu" if options.dry_run else "cuda"
    started = time.monotonic()
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        sources = {"wheels": options.wheels, "previous": options.previous}
        planned = steps(device, work, small=options.dry_run, **sources)
        names = [step.name for step in planned]
        if unknown := set(options.only or ()) - set(names):
            parser.error(f"--only {' '.join(sorted(unknown))}: the steps are {', '.join(names)}")
        for step in planned:
            if options.dry_run:  # a CPU is slower: only the whole is limited
                step = replace(step, limit=TOTAL)
            if options.only and step.name not in ("wheels", *options.only):
                step = replace(step, skip_reason="not asked for (--only)")
            left = TOTAL - (time.monotonic() - started)
            log = work / f"{step.name}.log"
            outcome = run_step(step, left, log)
            outcomes.append(outcome)
            print(f"{step.name}: {outcome.state}, {outcome.seconds} s: {outcome.detail}", flush=True)
            if outcome.state == FAILED:
                print(log.read_text(errors="replace")[-4000:])
        path = write_report(options.output, device, outcomes, work)
    print(f"{path} and {path.with_suffix('.md').name}")
    return 0 if all(outcome.state != FAILED for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
