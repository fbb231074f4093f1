"""The folder of one run: `config.py`, `log.jsonl`, `checkpoint.pth`, `checkpoint_best.pth`, `eval/`."""

import logging
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from util import distributed
from util.checkpoint import BEST, LATEST
from util.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside an output folder. Creating one touches nothing."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.py"

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

    def is_used(self) -> bool:
        """True when a training run has written here."""
        return any(p.exists() for p in (self.latest, self.best, self.log))

    def open_for_training(self, resume: str | Path | None = None) -> None:
        """Makes the folder. A used one is taken only to resume one of its own checkpoints.

        Raises UserError otherwise: two runs never share a folder, and nothing resumes unasked.
        """
        if self.is_used() and not (resume and Path(resume).resolve().parent == self.path.resolve()):
            remedy = f"continue it with --resume {self.latest}" if self.latest.exists() else "remove it"
            raise UserError(f"--output_dir {self.path} holds another run: {remedy}, or name a new folder")
        make_folder(self.path)

    def describe(self, config_source: str, model: nn.Module) -> None:
        """Writes `config.py`, and logs what is run: command, versions, size of the model."""
        self.config.write_text(config_source, encoding="utf-8")
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
    """Makes a folder with its parents. Raises UserError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error


def revision() -> str:
    """The project's git commit, with a plus where files differ from it; 'unknown' outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
