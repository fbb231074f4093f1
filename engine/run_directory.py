"""The folder of one run: `config.py`, `log.jsonl`, `checkpoint.pth`, `checkpoint_best.pth`, `eval/`."""

import logging
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine.run_lock import RunLock
from engine.trackers import RUN_ID
from util import distributed
from util.checkpoint import BEST, LATEST, Checkpoint
from util.errors import UserError
from util.files import atomic_write

_log = logging.getLogger(__name__)


# The names of `util.files.atomic_path`, and those of earlier revisions, which ended in a process number.
_HALF_WRITTEN = re.compile(r"\.(checkpoint\w*\.pth|log\.jsonl|config\.py|run\.lock)\.([0-9a-f]{32}|\d+)\.tmp")
_KEPT = re.compile(r"checkpoint_\d+\.pth")
Contents = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside an output folder. Creating one touches nothing."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.py"

    @property
    def classes(self) -> Path:
        return self.path / "classes.txt"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def text_log(self) -> Path:
        return self.path / "log.txt"

    @property
    def latest(self) -> Path:
        return self.path / LATEST

    @property
    def best(self) -> Path:
        return self.path / BEST

    def contents(self) -> Contents:
        """The checkpoints that are here, with what changes when one is written."""
        stats = [(path.name, path.stat()) for path in self.checkpoints()]
        return tuple((name, stat.st_ino, stat.st_mtime_ns) for name, stat in stats)

    def kept(self, step: int) -> Path:
        """The checkpoint of optimizer step `step`, where earlier ones are kept."""
        return self.path / f"checkpoint_{step}.pth"

    def kept_checkpoints(self) -> list[Path]:
        """Those that are here, the newest first."""
        found = [path for path in self.path.glob("checkpoint_*.pth") if _KEPT.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def checkpoints(self) -> list[Path]:
        """The checkpoints that are here: the latest, then the others, the newest first."""
        with _errors_of(self.path, "cannot be read"):
            others = [path for path in self.path.glob("checkpoint*.pth") if path != self.latest]
            others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            return [self.latest] * self.latest.exists() + others

    def newest_checkpoint(self, open_checkpoint: Callable[[Path], Checkpoint]) -> Checkpoint | None:
        """What `--resume auto` goes on from, the same on every rank: None where there is no checkpoint.

        open_checkpoint: reads a file. Its UserError says that the file is of no use: the next one is tried.
        Raises UserError where there are checkpoints and none of them is whole.
        """
        opened: dict[Path, Checkpoint] = {}

        def choose() -> Path | None:
            problem = "" if self.latest.exists() else f"{self.latest}: no such checkpoint"
            for path in self.checkpoints():
                try:
                    opened[path] = open_checkpoint(path)
                    opened[path].check_resumable()
                except UserError as error:
                    problem = problem or str(error)
                    continue
                if problem:
                    _log.warning("%s; going on from %s", problem, path)
                return path
            if self.checkpoints():
                raise UserError(f"{problem}; --output_dir {self.path} has no other checkpoint to go on from")
            return None

        path = distributed.on_main(choose)
        return None if path is None else opened.get(path) or open_checkpoint(path)

    @contextmanager
    def training(self, resume: str | Path | None, seen: Contents) -> Iterator[None]:
        """Opens the folder for this run alone, until the block ends; on every rank, rank 0 holds the lock.

        resume: the checkpoint that was read.  seen: `contents()` before it was.
        Raises UserError as `open_for_training` does, and where another process trains here, or just has.
        """
        lock = RunLock(self.path / "run.lock")

        def enter() -> None:
            make_folder(self.path)
            lock.acquire()
            try:
                if self.contents() != seen:
                    raise UserError(f"another run has just trained in {self.path}: run this command again")
                self.open_for_training(resume)
            except UserError:
                lock.release()
                raise

        distributed.on_main(enter)
        try:
            yield
        finally:
            lock.release()

    def open_for_training(self, resume: str | Path | None = None) -> None:
        """Makes the folder. One with checkpoints is taken only to resume one of them.

        A log without a checkpoint is nothing to protect: the run stopped before its first, and starts over.
        Raises UserError otherwise: two runs never share a folder, and nothing resumes unasked.
        """
        own = resume and Path(resume).resolve().parent == self.path.resolve()
        if self.checkpoints() and not own:
            raise UserError(
                f"--output_dir {self.path} holds another run: continue it with --resume auto, "
                "or name a new folder"
            )
        make_folder(self.path)
        self.remove_leftovers()
        if self.log.exists() and not own:
            _log.warning("--output_dir %s has a log but no checkpoint: training starts over", self.path)
            for path in (self.log, self.path / RUN_ID):
                with _errors_of(path, "cannot be removed"):
                    path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Removes what a process that was killed had half written. To be called with the lock only."""
        found = [path for path in self.path.glob(".*.tmp") if _HALF_WRITTEN.fullmatch(path.name)]
        size = 0
        for path in found:
            try:
                size += path.stat().st_size
                path.unlink()
            except OSError as error:
                _log.warning("%s: a stopped run left it, and it cannot be removed: %s", path, error.strerror)
        if found:
            _log.info("removed %d half-written files of a stopped run, %.1f MB", len(found), size / 1e6)

    def describe(self, config_source: str, model: nn.Module, union_table: str = "") -> None:
        """Writes `config.py`, and logs what is run: command, versions, size of the model.

        union_table: of several data sets, how their classes became one list: `classes.txt`.
        """
        with atomic_write(self.config) as file:
            file.write(config_source)
        if union_table:
            with atomic_write(self.classes) as file:
                file.write(union_table + "\n")
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        total, trained = sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)
        _log.info("command: %s", shlex.join(sys.argv))
        _log.info(
            "revision %s, torch %s, Python %s", revision(), torch.__version__, platform.python_version()
        )
        _log.info("processes %d, threads %d", distributed.world_size(), torch.get_num_threads())
        _log.info("%.2f million parameters, %.2f million of them train", total / 1e6, trained / 1e6)


@contextmanager
def evaluation_folder(output_dir: str) -> Iterator[Path]:
    """The folder that an evaluation writes to, the same on every rank: a temporary one unless it is named."""
    if output_dir:
        distributed.on_main(lambda: make_folder(Path(output_dir)))
        yield Path(output_dir)
        return
    with tempfile.TemporaryDirectory() if distributed.is_main() else nullcontext() as own:
        yield Path(str(distributed.broadcast_object(own)))
        distributed.barrier()


def make_folder(folder: Path) -> None:
    """Makes a folder with its parents. Raises UserError where that, or writing into it, is not possible."""
    with _errors_of(folder, "cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    with _errors_of(folder, "cannot be written to"):
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def _errors_of(path: Path, what: str) -> Iterator[None]:
    """Turns the system's errors into a UserError that says `what` about `path`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: {what} ({reason})") from error


def revision() -> str:
    """The project's git commit, with a plus where files differ from it; 'unknown' outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
