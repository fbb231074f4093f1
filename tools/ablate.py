"""Trains the rows of a grid with several seeds, on equally many images, and compares them in one table.

    python tools/ablate.py GRID.py --output DIR [--data_path DATA] [-j N]

Stopped in any way, the same command goes on. DIR gets table.json, table.md and curves.png, a small file for
each finished run in results/, and the runs themselves in runs/. docs/ablation.md describes the grid file.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from util.signals import SignalStop, end_at_once

if __name__ == "__main__":
    # The imports below take seconds.
    end_at_once()

import torch

from engine.run_directory import make_folder
from engine.run_lock import RunLock
from engine.run_log import duration
from engine.stopping import Stopping
from tools.ablation.curves import write_curves
from tools.ablation.folds import make_folds
from tools.ablation.grid import read_grid
from tools.ablation.plan import Run, check_unchanged, plan_runs
from tools.ablation.processes import Machine, Processes, was_stopped, why_it_failed
from tools.ablation.results import read_run
from tools.ablation.table import markdown, table_content
from tools.tail_report.content import replicates
from util.distributed import choose_device
from util.errors import UserError, run_command
from util.files import atomic_write
from util.logging import each_line_once


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path, metavar="GRID.py", help="the rows, seeds, data and budget")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of this ablation")
    parser.add_argument("--data_path", help="data folder (default: the grid's)")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--device", default="auto", help="of every run: auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--num_workers", type=int, default=0, help="loader processes a run (default: 0)")
    parser.add_argument(
        "--bootstrap", type=replicates, default=500, help="replicates, 20 to 100,000 (default: 500)"
    )
    parser.add_argument("--rerun", action="store_true", help="remove runs whose config or data has changed")
    parser.add_argument(
        "--table_only", action="store_true", help="train nothing; the table of the runs that are finished"
    )
    args = parser.parse_args(words)
    for name, least in (("jobs", 1), ("num_workers", 0)):
        if getattr(args, name) < least:
            parser.error(f"argument --{name}: {getattr(args, name)} is below {least}")
    if args.rerun and args.table_only:
        parser.error("--rerun makes runs again, --table_only makes none: give one of them")
    return args


def main(words: list[str] | None = None) -> int:
    """Returns 0, 1 where a run failed, or the status of a signal. Raises UserError."""
    args = parse_arguments(words)
    make_folder(args.output)
    with Stopping():
        try:
            # A table may be made while another process trains.
            with nullcontext() if args.table_only else _locked(args.output):
                return ablate(args)
        except SignalStop as stop:
            print(f"{stop}; the same command goes on", file=sys.stderr)
            return stop.status


@contextmanager
def _locked(output: Path) -> Iterator[None]:
    lock = RunLock(output / "ablate.lock")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def ablate(args: argparse.Namespace) -> int:
    """The runs, then the table."""
    grid = read_grid(args.grid)
    data = args.data_path or grid.data
    if not data:
        raise UserError(f"grid {args.grid}: does not say 'data': name it with --data_path")
    output = args.output.resolve()
    folders = {0: Path(data).resolve()}
    if grid.folds:
        folders = make_folds(folders[0], grid.folds, output / "data")
    # The images of folds are where they were.
    outside = bool(grid.folds)
    device = choose_device(args.device)
    with each_line_once():
        runs = plan_runs(grid, output, folders, allow_outside=outside)
    check_unchanged(runs, again=args.rerun)
    failed: dict[Run, str] = {}
    if not args.table_only:
        waiting = [run for run in runs if run.result() is None]
        print(
            f"{len(runs)} runs of {grid.images} images; {len(waiting)} to do, {args.jobs} at a time",
            flush=True,
        )
        machine = Machine(args.device, args.num_workers, grid.threads, outside)
        Processes(machine).run_all(waiting, args.jobs, partial(_finish, runs, failed, device))
    content = table_content(args.grid.stem, grid, runs, failed, args.bootstrap)
    with atomic_write(output / "table.json", durable=False) as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    text = markdown(content)
    with atomic_write(output / "table.md", durable=False) as file:
        file.write(text)
    found = {row: [r for run in runs if run.row == row and (r := run.result())] for row in grid.rows}
    write_curves(output / "curves.png", found)
    print(text)
    for name in ("table.md", "table.json", "curves.png"):
        print(output / name)
    return 1 if failed else 0


def _finish(runs: Sequence[Run], failed: dict[Run, str], device: torch.device, run: Run, status: int) -> None:
    """Keeps the result of a run that has ended, and says so in one line."""
    if was_stopped(status):
        failed[run] = "it was stopped"
    elif status:
        failed[run] = why_it_failed(run, status)
    else:
        try:
            read_run(run.folder, run.identity, device).write(run.result_file)
        except UserError as error:
            failed[run] = str(error)
    done = sum(run.result_file.is_file() for run in runs)
    result = run.result()
    if result is None:
        said = f"failed: {failed[run]}"
    else:
        numbers = [f"{m} {100 * result.metrics[m]:.1f}" for m in ("AP", "APr") if result.metrics[m] >= 0]
        said = f"{' '.join(numbers)}, trained {duration(result.train_seconds)}"
    print(f"[{done}/{len(runs)}] {run.name}: {said}", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
