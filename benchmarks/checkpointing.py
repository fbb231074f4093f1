"""What a checkpoint every 50 steps costs training, on the quickstart's model and data; what checksums cost.

    python benchmarks/checkpointing.py DATA [--blocks 8] [--megabytes 600] [--json OUT]

DATA: made by `tools/make_mini_lvis.py`. Trains as `main.py` does. Blocks of 50 steps take turns: at the start
of every second one a checkpoint is saved, which its thread writes meanwhile; the first two are not counted.
`step/wall`, `step/cpu`: a step of a block with a checkpoint, by the clock and in CPU seconds of all threads
(reference: a block without). `save`: what training waits for. `checkpoint/cpu`: CPU seconds of a whole one,
copied and written (reference: of the 50 steps before it), which other work on the machine moves least.
`read`: a file of that size with its checksums (reference: torch.load, which compares none).
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Idle OpenMP threads sleep instead of spinning, as in main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.protocol import TIME, Row, argument_parser, interleaved, report
from config import load
from datasets.build import RunSettings, build_datasets
from engine.build import build_settings, build_state
from engine.random_state import seed_everything
from engine.run_directory import RunDirectory
from engine.run_log import RunLog
from engine.saving import Saver
from engine.train_epoch import Task, train_one_epoch
from models.richsem.build import build_model
from util.torch_file import read_torch_file

CONFIG = Path(__file__).resolve().parents[1] / "config" / "quickstart" / "richsem_mini.py"
BLOCK = 50


class Finished(Exception):  # noqa: N818 - it is no error
    """All blocks are measured."""


class Blocks:
    """Called after each step. Saves at the start of every second block, and notes how long each took."""

    def __init__(self, blocks: int, save: Callable[[], None]) -> None:
        self.blocks, self.save = blocks, save
        self.steps, self.started = 0, _now()
        self.seconds: list[tuple[float, float]] = []
        self.saves: list[float] = []

    def __call__(self) -> None:
        self.steps += 1
        if self.steps % BLOCK:
            return
        now = _now()
        self.seconds.append((now[0] - self.started[0], now[1] - self.started[1]))
        if len(self.seconds) == 2 * self.blocks + 2:
            raise Finished
        self.started = now
        if len(self.seconds) % 2:
            self.save()
            self.saves.append(time.perf_counter() - now[0])

    def rows(self) -> list[Row]:
        """Block 0 is a warm-up, block 1 makes the first copy; then without, with, without, ..."""
        rows = []
        for place, clock in enumerate(("wall", "cpu")):
            without, with_ = (
                statistics.median(block[place] for block in self.seconds[start::2]) / BLOCK
                for start in (2, 3)
            )
            rows.append(Row(f"step/{clock}", "without", TIME, with_, without))
        return [*rows, Row("save", "none", TIME, statistics.median(self.saves[1:]), None)]


def _now() -> tuple[float, float]:
    """Of the clock, and of the CPU in all threads."""
    return time.perf_counter(), time.process_time()


def whole_checkpoint(save: Callable[[], None], wait: Callable[[], None]) -> float:
    """CPU seconds of one, in all threads; the median of nine."""
    spent = []
    for _ in range(9):
        started = time.process_time()
        save()
        wait()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def reading(folder: Path, megabytes: int) -> Row:
    """A file of random numbers in tensors of 4 MB."""
    path = folder / "large.pth"
    torch.save({f"w{index}": torch.rand(1_000_000) for index in range(megabytes // 4)}, path)
    runs = {
        "with": lambda: read_torch_file(path),
        "without": lambda: torch.load(path, weights_only=True),
    }
    seconds = interleaved(runs, repeats=5)
    path.unlink()
    return Row("read", "torch.load", TIME, seconds["with"], seconds["without"])


def main() -> None:
    parser = argument_parser(__doc__, device="where it trains")
    parser.add_argument("data", type=Path)
    parser.add_argument("--blocks", type=int, default=8, help="of each kind")
    parser.add_argument("--megabytes", type=int, default=600, help="of the file that is read")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    seed_everything(42)
    clip = {"clip_model": "mini_clip.json", "clip_pretrained": "mini_clip.safetensors"}
    config = load(CONFIG, {key: str(CONFIG.with_name(name)) for key, name in clip.items()})
    data = build_datasets(config, RunSettings(data_path=str(args.data), num_workers=0))
    assert data.train_loader is not None
    parts = build_model(config, data.classes.names, data.classes.image_counts, device)
    settings = build_settings(config, device)
    state = build_state(config, parts.model, len(data.train_loader), device)
    task = Task(parts.model, parts.criterion, parts.teacher)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        log = RunLog(run.log)
        identity = {"class_names": data.classes.names, "config": config.to_dict()}
        with Saver(run, settings, identity) as saver:

            def save() -> None:
                log.sync()
                saver.save(state)

            measured = Blocks(args.blocks, save)
            try:
                while True:
                    train_one_epoch(task, state, data.train_loader, settings, log, measured)
                    state.finish_epoch()
            except Finished:
                pass
            spent = whole_checkpoint(save, saver.wait)
        rows = measured.rows()
        steps = statistics.median(block[1] for block in measured.seconds[2::2])
        rows.append(Row("checkpoint/cpu", f"{BLOCK} steps", TIME, spent, steps))
        rows.append(reading(run.path, args.megabytes))
        notes = {"parameters": sum(p.numel() for p in parts.model.parameters())}
        notes |= {"checkpoint_bytes": run.latest.stat().st_size, "steps": measured.steps}
    notes |= {"blocks": [[round(part / BLOCK, 4) for part in block] for block in measured.seconds]}
    notes |= {"saves": [round(seconds, 4) for seconds in measured.saves]}
    report(rows, device=args.device, json_path=args.json, notes=notes)


if __name__ == "__main__":
    main()
