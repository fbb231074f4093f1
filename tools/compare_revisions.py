"""Trains two revisions alike and compares their losses, metrics and predictions.

python tools/compare_revisions.py A B [--rtol R] [--steps N] [--keep DIR]

A and B are git revisions, or folders of a checkout (`.`: the working tree as it is). Data and configs are
the same for both, drawn small and run on the CPU with fixed seeds. The revisions must share only the
command line, the config keys, `log.jsonl` and the output of `--eval`. Prints one row per quantity and ends
with `same: ...` (exit status 0) or `DIFFERENT: ...` (1). Bad input and failed runs exit with 2.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.revisions.compare import compare, read_numbers, report
from tools.revisions.configs import CONFIGS, config_source
from util.errors import UserError, run_command

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "config" / "quickstart" / "mini_clip"
SEED = "7"
VALIDATION_IMAGES = 6
# What both sides import that is not of this project.
LIBRARIES = ("torch", "torchvision", "timm", "open_clip")
# torchrun sets them: a process would wait for the other ranks.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Side:
    """name: as the user gave it. folder: its checkout. output: where its runs are written."""

    name: str
    folder: Path
    output: Path


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", metavar="A", help="git revision, or folder of a checkout")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--rtol", type=float, default=0.0, help="allowed relative difference (default: 0)")
    parser.add_argument("--steps", type=int, default=12, help="batches per training run, an even number")
    parser.add_argument("--configs", nargs="+", choices=list(CONFIGS), default=list(CONFIGS), help="to train")
    parser.add_argument("--keep", type=Path, help="new folder that keeps data, trees and runs")
    return parser.parse_args(arguments)


def checkout(name: str, target: Path) -> Path:
    """The folder called `name`, or the git revision exported to `target`. Raises UserError."""
    if Path(name).is_dir():
        if not (Path(name) / "main.py").is_file():
            raise UserError(f"{name}: not a checkout of this project (it has no main.py)")
        return Path(name).resolve()
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"],
            capture_output=True,
            text=True,
        )
        if commit.returncode:
            raise UserError(f"{name}: neither a folder nor a git revision of {ROOT}")
        archive = subprocess.run([*git, "archive", commit.stdout.strip()], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{name}: git cannot export it ({error})") from error
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(target, filter="data")
    return target


def draw_data(folder: Path, steps: int) -> None:
    """A mini LVIS of `steps` training images. Raises UserError when the generator fails."""
    words = ["--output", str(folder), "--train", str(steps), "--val", str(VALIDATION_IMAGES)]
    words += ["--image_level", "1", "--side", "96", "--workers", "1", "--seed", SEED]
    command = [sys.executable, str(ROOT / "tools" / "make_mini_lvis.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the test data cannot be drawn: {last_line(done.stderr)}")


def commands(data: Path, output: Path, configs: Sequence[str]) -> list[list[str]]:
    """Argument lists of `main.py`: for each config, training into `output`/CONFIG, then evaluation."""
    found = []
    for name in configs:
        clip = {"clip_model": f"{CLIP}.json", "clip_pretrained": f"{CLIP}.safetensors"}
        file, run = output / f"{name}.py", output / name
        file.write_text(config_source(name, **clip, text_cache_dir=str(output / "cache")), encoding="utf-8")
        common = ["--device", "cpu", "--num_workers", "0", "--seed", SEED, "--data_path", str(data)]
        found.append(["-c", str(file), *common, "--output_dir", str(run)])
        resume = ["--resume", str(run / "checkpoint.pth"), "--eval", "--save_results"]
        found.append([*resume, *common, "--output_dir", str(run / "evaluated")])
    return found


def run_sides(sides: Sequence[Side], data: Path, configs: Sequence[str]) -> None:
    """Trains and evaluates on each side. Raises UserError that names the side whose run fails."""
    jobs = []
    for side in sides:
        side.output.mkdir()
        job = {"folder": str(side.folder), "output": str(side.output / "output.txt")}
        jobs.append({**job, "commands": commands(data, side.output, configs)})
    environment = {k: v for k, v in os.environ.items() if k not in (*RANK_VARIABLES, "PYTHONPATH")}
    fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    fixed |= {"PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "revisions" / "run_sides.py")],
        input=json.dumps({"libraries": LIBRARIES, "sides": jobs}),
        env=environment | fixed,
        capture_output=True,
        text=True,
    )
    for index, side in enumerate(sides):
        printed = side.output / "output.txt"
        if done.returncode == index + 1 and printed.exists():
            raise UserError(f"{side.name}: main.py failed: {last_line(printed.read_text(errors='replace'))}")
    if done.returncode:
        raise UserError(f"the runs cannot be started: {last_line(done.stderr)}")


@contextlib.contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """`keep`, which must be new or empty, or a temporary folder."""
    if keep is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        empty = not any(keep.iterdir())
    except OSError as error:
        raise UserError(f"--keep {keep}: cannot be used ({error.strerror})") from error
    if not empty:
        raise UserError(f"--keep {keep}: not empty. Remove it or name another folder.")
    yield keep.resolve()


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where the two sides agree, else 1. Raises UserError."""
    args = parse_arguments(arguments)
    if args.steps < 2 or args.steps % 2:
        raise UserError(f"--steps must be an even number of at least 2, not {args.steps}.")
    if not args.rtol >= 0:
        raise UserError(f"--rtol must not be negative, not {args.rtol}.")
    with work_folder(args.keep) as work:
        named = (("A", args.a), ("B", args.b))
        sides = [Side(name, checkout(name, work / f"{x}_tree"), work / x) for x, name in named]
        draw_data(work / "data", args.steps)
        run_sides(sides, work / "data", args.configs)
        rows = {}
        for config in args.configs:
            a, b = (read_numbers(side.output / config) for side in sides)
            rows[config] = compare(a, b)
        return 0 if report(rows, args.rtol) else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
