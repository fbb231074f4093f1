"""Batches with losses that are not finite, kept for `tools/replay_batch.py`; what may follow one."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from engine.loss_buffer import NonFinite
from util.checkpoint import LATEST
from util.errors import UserError, first_line
from util.files import atomic_path
from util.structures import Batch, PaddedImages, Targets
from util.torch_file import read_torch_file

FORMAT = "richsem-batch-1"
# Optimizer steps in a row that `on_nonfinite='skip'` leaves out at most, and how often `rollback` goes back.
MOST_SKIPPED, MOST_ROLLBACKS = 10, 10


@dataclass(frozen=True)
class KeptBatch:
    """A batch on its rank, as the loader gave it.

    losses: what training computed.  rng: of the model's generators before that.  where: for people.
    """

    images: PaddedImages
    targets: Targets
    losses: Mapping[str, float]
    rng: Mapping[str, Any]
    where: str
    path: Path

    @property
    def checkpoint(self) -> Path:
        """The latest of the run, whose weights are those before the batch or some steps older."""
        return self.path.parent / LATEST


def file_name(step: int) -> str:
    """step: the optimizer step that the batch belonged to."""
    return f"nonfinite_step{step}.pt"


def keep_batch(path: Path, found: NonFinite, batch: Batch) -> None:
    """Writes the file. Raises UserError where it cannot be written."""
    images, targets = (part.to("cpu") for part in batch)
    where = f"epoch {found.epoch}, iteration {found.origin.iteration}, rank {found.rank}: {found.origin}"
    content = {
        "format": FORMAT,
        "where": where,
        "losses": dict(found.losses),
        "rng": dict(found.origin.rng),
        "images": {f.name: getattr(images, f.name) for f in fields(images)},
        "targets": {f.name: getattr(targets, f.name) for f in fields(targets)},
    }
    try:
        with atomic_path(path, durable=False) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be written ({first_line(error)})") from error


def read_batch(path: Path) -> KeptBatch:
    """Raises UserError for a file that is missing, damaged or anything else."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = read_torch_file(path)
    try:
        if content["format"] != FORMAT:
            raise KeyError("format")
        images, targets = PaddedImages(**content["images"]), Targets(**content["targets"])
        return KeptBatch(images, targets, content["losses"], content["rng"], content["where"], path)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no batch that training has kept ({first_line(error)})") from error
