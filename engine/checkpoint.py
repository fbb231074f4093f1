"""Checkpoint files: written atomically, read without running pickled code, plain data only.

Keys of a checkpoint: `format`, `model` (state dict, text embeddings among its buffers), `class_names`,
`config` (plain dict), `run` (flags that evaluation and the order of the data need, the seed among them),
`note`, `epoch` (epochs finished), `best_ap`, `optimizer`, `scheduler`, `ema`, `scaler`, `rng` (one entry per
rank). The order of images is a function of seed and epoch, so a sampler has no state.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import UserError, nearest

FORMAT = "richsem-1"
LATEST = "checkpoint.pth"
BEST = "checkpoint_best.pth"


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Calls `write` with an open binary file that becomes `path` only once it is whole and on the disk."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise UserError(f"{path}: cannot be written ({_first_line(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Puts the new name on the disk too; not every system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes `content`, plain data, with the format tag. A file already there survives any interruption."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def read_checkpoint(path: str | Path, import_foreign: Callable[[Path], dict] | None = None) -> dict[str, Any]:
    """Reads a checkpoint to the CPU with `weights_only=True`.

    import_foreign: tried on a file that is whole but not of our format; returns a checkpoint's content.
    Raises UserError for a file that is missing, damaged or of another format.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.pth")] if path.parent.is_dir() else []
        what = "is a folder, not a checkpoint" if path.is_dir() else "no such checkpoint"
        raise UserError(f"{path}: {what}.{nearest(path.name, siblings)}")
    foreign_globals = False
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign_globals = "Unsupported global" in str(error) or "not an allowed global" in str(error)
        if not (foreign_globals and import_foreign):
            raise UserError(f"{path}: damaged, or not plain data ({_first_line(error)})") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged checkpoint ({_first_line(error)})") from error
    if not foreign_globals and isinstance(content, dict) and content.get("format") == FORMAT:
        return content
    if import_foreign is None:
        raise UserError(f"{path}: not a checkpoint of this project (no format {FORMAT!r})")
    return import_foreign(path)


def check_class_names(saved: Sequence[str], current: Sequence[str], path: str | Path) -> None:
    """Raises UserError that names the first difference of two class lists."""
    for index, (a, b) in enumerate(zip(saved, current, strict=False)):
        if a != b:
            raise UserError(f"{path}: another class list: class {index} is {a!r} there and {b!r} here")
    if len(saved) != len(current):
        longer, where = (saved, "there") if len(saved) > len(current) else (current, "here")
        extra = longer[min(len(saved), len(current))]
        raise UserError(
            f"{path}: another class list: {len(saved)} classes there, {len(current)} here, "
            f"only {where}: {extra!r}"
        )


def evaluated_weights(content: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that training evaluated: the average where one is kept."""
    return content["ema"]["model"] if content.get("ema") else content["model"]


def load_model_state(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Loads every tensor of `state` into `model`; the two must agree in names and shapes.

    Raises UserError that names the first tensor that does not.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise UserError(f"{path}: has no tensor {name!r}: it was saved with another config")
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor {name!r} is {tuple(state[name].shape)} there and {tuple(tensor.shape)} here"
            )
    unknown = [name for name in state if name not in own]
    if unknown:
        raise UserError(
            f"{path}: tensor {unknown[0]!r} has no place in this model.{nearest(unknown[0], own)}"
        )
    model.load_state_dict(state)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
