"""The folder of one run: `config.py`, `log.jsonl`, `checkpoint.pth`, `checkpoint_best.pth`, `eval/`."""

from dataclasses import dataclass
from pathlib import Path

from engine.checkpoint import BEST, LATEST
from util.errors import UserError


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

    @property
    def eval(self) -> Path:
        return self.path / "eval"

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
        self._make(self.path)

    def open_for_evaluation(self) -> Path:
        """Makes `eval/` and returns it."""
        self._make(self.eval)
        return self.eval

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror})") from error
