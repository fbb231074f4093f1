"""Checkpoint files: one type, written atomically, read without running pickled code, plain data only."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from util.checkpoint_content import EntryError, check_entries
from util.checksum import check_zip, digest
from util.errors import UserError, first_line, nearest
from util.files import atomic_path, atomic_write
from util.hub import CONTENT, WEIGHTS
from util.torch_file import DAMAGED, read_torch_file

FORMAT = "richsem-1"
LATEST = "checkpoint.pth"
BEST = "checkpoint_best.pth"
# The entry of a safetensors file's metadata that holds everything but the tensors, as JSON.
_ENTRY = "richsem"
# The entry of its digest; files of older revisions have none.
_DIGEST = "richsem_sha256"

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds. Every field but `path` is an entry of the file under the same name.

    The order of images is a function of seed and epoch, so a sampler has no state.

    path:        the file that it was read from, for messages.
    model:       state dict of the bare model, text embeddings among its buffers.
    class_names: one for each class column, '' for a column that is no class; empty where they are not known.
    image_counts: training images that contain each class; empty where they are not known.
    frequencies: 'r', 'c', 'f' or '' for each class, as the annotations say; empty where they are not known.
    config:      the config as a plain dict.
    run:         flags that evaluation and the order of the data need, the seed among them.
    note:        the user's remark.
    epoch:       epochs finished.
    iteration:   batches of the next epoch that are done, on each rank; 0 between epochs.
    evaluated:   False where the evaluation that follows epoch `epoch` is still to be done.
    progress:    what the log knows of an epoch without its line: `seconds`, `epoch` (`sums` and `counts`
                 by name, over all ranks) and `windows` (since the last line, for each rank); else empty.
    best_ap:     highest AP so far, None before the first evaluation.
    early_stopping: AP at its last rise, and evaluations since; empty in older files.
    optimizer, scheduler, scaler: their states; None in a file of weights alone.
    ema:         `model`, the averaged weights, and `updates`, how often; None without an average.
    rng:         generator states, one entry for each rank.
    """

    path: Path = Path()
    model: State
    class_names: Sequence[str] = ()
    image_counts: Sequence[int] = ()
    frequencies: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    epoch: int = 0
    iteration: int = 0
    evaluated: bool = True
    progress: Mapping[str, Any] = field(default_factory=dict)
    best_ap: float | None = None
    early_stopping: Mapping[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    ema: Mapping[str, Any] | None = None
    rng: Sequence[Any] | None = None

    @property
    def evaluated_weights(self) -> State:
        """The weights that training evaluated: the average where one is kept."""
        return self.ema["model"] if self.ema else self.model

    def check_resumable(self) -> None:
        """Raises UserError where training cannot continue from it: a file of weights alone."""
        missing = [name for name in ("optimizer", "scheduler") if getattr(self, name) is None]
        if missing:
            raise UserError(
                f"{self.path}: has weights but no {missing[0]} state, so training cannot continue; "
                "start from it with --pretrain_model_path"
            )

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """That of a file of this project. Raises UserError as `read_content` and `from_content` do."""
        return cls.from_content(read_content(path), path)

    @classmethod
    def from_content(cls, content: Mapping[str, Any], path: str | Path) -> Checkpoint:
        """The checkpoint whose entries `content` holds.

        Raises UserError naming an entry that is missing, of another type or out of range, or two that
        contradict each other.
        """
        names = [f.name for f in fields(Checkpoint) if f.name != "path"]
        entries = {name: content[name] for name in names if name in content}
        try:
            for name in _ENTRIES if entries.get("optimizer") is not None else ("model",):
                if name not in entries:
                    raise EntryError(f"it has no {name!r}")
            check_entries(entries)
        except EntryError as error:
            raise UserError(f"{path}: damaged checkpoint ({error})") from None
        return cls(path=Path(path), **entries)


# What every file with training state has had since the first revision.
_ENTRIES = (
    "model",
    "epoch",
    "scheduler",
    "config",
    "run",
    "class_names",
    "note",
    "best_ap",
    "scaler",
    "ema",
    "rng",
)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint. A file that is already there survives any interruption.

    Raises UserError where the file cannot be written, for example because the disk is full.
    """
    entries = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name != "path"}
    for name in ("class_names", "image_counts", "frequencies"):
        entries[name] = list(entries[name])
    try:
        with atomic_path(path) as temporary:
            _write(temporary, {"format": FORMAT, **entries})
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(f"{path}: cannot be written ({reason})") from error


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Raises OSError, with the system's reason where there is one, or torch's RuntimeError."""
    try:
        torch.save(content, path)
    except RuntimeError as error:
        # Of a full disk, torch only says that some bytes were not written. Writing on tells why.
        with path.open("ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
        raise error


def save_published(folder: Path, weights: State, content: Mapping[str, Any]) -> None:
    """Writes weights for others: `model.safetensors`, which holds `content` too, and a copy as `config.json`.

    content: the other entries of a `Checkpoint`, and more where readers may ignore it; as JSON has it.
    Raises UserError where the folder cannot be written to.
    """
    text = json.dumps({"format": FORMAT, **content}, indent=1, ensure_ascii=False)
    # Tensors that share memory are refused.
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    with atomic_write(folder / CONTENT) as file:
        file.write(text + "\n")
    try:
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(own, temporary, metadata={"format": "pt", _ENTRY: text, _DIGEST: digest(own, text)})
            # safetensors lets nobody else read its files.
            temporary.chmod((folder / CONTENT).stat().st_mode)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be written ({first_line(error)})") from error


def is_published(path: str | Path) -> bool:
    """Whether a path is a folder with `model.safetensors`, or such a file."""
    path = Path(path)
    return path.suffix == ".safetensors" or (path / WEIGHTS).is_file()


def _read_published(path: Path) -> dict[str, Any]:
    """The content of a safetensors file: what its metadata describe, or else the `config.json` beside it."""
    beside = path.with_name(CONTENT)
    try:
        with safe_open(path, framework="pt") as file:
            model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged checkpoint ({first_line(error)})") from error
    text = metadata.get(_ENTRY)
    if _DIGEST in metadata and metadata[_DIGEST] != digest(model, text or ""):
        raise UserError(f"{path}: {DAMAGED}")
    if text is None and not beside.is_file():
        raise UserError(
            f"{path}: has weights only: its metadata have no {_ENTRY!r}, and {beside} is not there"
        )
    try:
        content = json.loads(beside.read_text(encoding="utf-8") if text is None else text)
    except (OSError, ValueError, RecursionError) as error:
        source = beside if text is None else f"{path}: its metadata"
        raise UserError(f"{source}: cannot be read as JSON ({first_line(error)})") from error
    if not is_ours(content):
        source = beside if text is None else path
        raise UserError(f"{source}: does not describe a checkpoint of this project (no format {FORMAT!r})")
    return {**content, "model": model}


def read_content(path: str | Path) -> Any:
    """The content, on the CPU, of a checkpoint of ours or the official release's, or of a published folder.

    No code of the file runs; besides plain data only argparse's Namespace is allowed, in which the official
    release keeps its options. Raises UserError for a file that is missing, damaged or anything else.
    """
    path = Path(path)
    if path.is_dir() and is_published(path):
        path = path / WEIGHTS
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.pth")] if path.parent.is_dir() else []
        what = f"is a folder without {WEIGHTS}" if path.is_dir() else "no such checkpoint"
        raise UserError(f"{path}: {what}.{nearest(path.name, siblings)}")
    if path.suffix == ".safetensors":
        return _read_published(path)
    return read_torch_file(path, allowed=[argparse.Namespace])


def has_checksum(path: str | Path) -> bool:
    """Whether a readable checkpoint carries checksums, which reading it has compared then."""
    path = Path(path)
    if not is_published(path):
        return check_zip(path)
    file = path / WEIGHTS if path.is_dir() else path
    with safe_open(file, framework="pt") as opened:
        return _DIGEST in (opened.metadata() or {})


def is_ours(content: Any) -> bool:
    """Whether `content` of a file is a checkpoint of this project."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def check_class_names(saved: Sequence[str], current: Sequence[str], path: str | Path) -> None:
    """Raises UserError naming the first difference between a checkpoint's class list and the data's."""
    for index, (a, b) in enumerate(zip(saved, current, strict=False)):
        if a != b:
            raise UserError(
                f"{path}: class lists differ: class {index} is {a!r} in the checkpoint, {b!r} in the data"
            )
    if len(saved) != len(current):
        longer, where = (saved, "checkpoint") if len(saved) > len(current) else (current, "data")
        extra = longer[min(len(saved), len(current))]
        raise UserError(
            f"{path}: class lists differ: {len(saved)} in the checkpoint, {len(current)} in the data; "
            f"only the {where} has {extra!r}"
        )


def check_model_state(model: nn.Module, state: State, source: str | Path) -> None:
    """Raises UserError naming the first tensor that `model` or `state` lacks, or whose shapes differ.

    source: where the state comes from, for messages.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise UserError(f"{source}: has no tensor {name!r}; it was saved with another config")
        if state[name].shape != tensor.shape:
            saved, here = tuple(state[name].shape), tuple(tensor.shape)
            raise UserError(f"{source}: {name!r} has shape {saved}, this model needs {here}")
    unknown = [name for name in state if name not in own]
    if unknown:
        raise UserError(
            f"{source}: {unknown[0]!r} is not a parameter of this model.{nearest(unknown[0], own)}"
        )


def load_model_state(model: nn.Module, state: State, source: str | Path) -> None:
    """Loads every tensor of `state` into `model`. Raises UserError as `check_model_state`."""
    check_model_state(model, state, source)
    model.load_state_dict(state)
