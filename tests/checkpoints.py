"""Reading checkpoints of this project, as `models.richsem.load` does, without importing the models."""

from pathlib import Path

from util.checkpoint import Checkpoint, read_content


def read_checkpoint(path: str | Path) -> Checkpoint:
    return Checkpoint.from_content(read_content(path), path)
