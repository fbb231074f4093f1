"""Checkpoints off the training path: copied to memory at once, written by a thread, the last few kept."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.run_directory import RunDirectory
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError
from util.files import atomic_copy, writing
from util.nonfinite import first_nonfinite

_log = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes the checkpoints of one run; rank 0 has it. `close` it at the end.

    keep: how many earlier checkpoints stay as `checkpoint_STEP.pth` when the latest is replaced.
    """

    def __init__(self, run: RunDirectory, keep: int = 0) -> None:
        self.run, self.keep = run, keep
        self._snapshot = Snapshot()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._failure: UserError | None = None
        # Optimizer step of `checkpoint.pth`; None where this process has not written it.
        self._latest_step: int | None = None

    def save(self, checkpoint: Checkpoint, *, latest: bool, best: bool) -> None:
        """Takes a copy and returns; the file appears soon after. Waits for the write before this one.

        The best is on the disk before the latest, which holds its AP. Where a write fails, the files that
        are there stay, a warning says so once, and training goes on.
        Raises UserError, and writes nothing, where the weights or their average are not finite.
        """
        self.wait()
        self._check_finite(checkpoint)
        copied = self._snapshot.take(checkpoint)
        self._writing = self._thread.submit(self._write, copied, latest, best)

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk, or could not be written, which is logged once."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except UserError as error:
            if self._failure is None:
                _log.warning("%s; training goes on, and the checkpoints that are there stay", error)
            self._failure = error
        else:
            if self._failure is not None:
                _log.info("checkpoints are written again")
            self._failure = None

    def close(self) -> None:
        """Ends the thread. Raises UserError where the last checkpoint could not be written."""
        self.wait()
        self._thread.shutdown()
        if self._failure is not None:
            raise self._failure

    def _check_finite(self, checkpoint: Checkpoint) -> None:
        for what, weights in (("weights", checkpoint.model), ("averaged weights", _average(checkpoint))):
            if (name := first_nonfinite(weights)) is not None:
                saved = f"no checkpoint is written, {self.run.latest} stays"
                raise UserError(f"the {what} are not finite, in {name!r}: {saved}")

    def _write(self, copied: "Copied", latest: bool, best: bool) -> None:
        checkpoint = copied.checkpoint()
        if best:
            save_checkpoint(self.run.best, checkpoint)
        if latest:
            with writing(self.run.latest):
                self._replace_latest(checkpoint, best)

    def _replace_latest(self, checkpoint: Checkpoint, is_best: bool) -> None:
        run, step = self.run, _step(checkpoint)
        if self.keep:
            self._keep_latest(step)
        if is_best:
            atomic_copy(run.best, run.latest)
        else:
            save_checkpoint(run.latest, checkpoint)
        self._latest_step = step
        for old in run.kept_checkpoints()[self.keep :] if self.keep else ():
            old.unlink(missing_ok=True)

    def _keep_latest(self, step: int) -> None:
        """Gives the latest checkpoint, which that of `step` is about to replace, a name of its own."""
        if not self.run.latest.exists():
            return
        if self._latest_step is None:
            try:
                self._latest_step = _step(Checkpoint.read(self.run.latest))
            except UserError as error:
                _log.warning("%s: not kept", error)
        # A step may have two, before and after its evaluation.
        if self._latest_step not in (None, step):
            atomic_copy(self.run.latest, self.run.kept(self._latest_step), link=True)


def _step(checkpoint: Checkpoint) -> int:
    return int((checkpoint.scheduler or {}).get("position", 0))


def _average(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    return checkpoint.ema["model"] if checkpoint.ema else {}


class Copied:
    """A checkpoint whose tensors are on their way to memory."""

    def __init__(self, checkpoint: Checkpoint, arrived: torch.cuda.Event | None) -> None:
        self._checkpoint, self._arrived = checkpoint, arrived

    def checkpoint(self) -> Checkpoint:
        """Waits until all have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._checkpoint


class Snapshot:
    """Copies of checkpoints in memory of the CPU, which the next copy uses again.

    Copies of a GPU's tensors go to pinned memory without waiting: they are made in the order of its stream,
    so before the next step changes the tensors.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._taken: dict[tuple[Any, ...], Tensor] = {}

    def take(self, checkpoint: Checkpoint) -> Copied:
        """The copy; it is good until the next is taken."""
        self._taken = {}
        fields = {k: self._copied((k,), v) for k, v in vars(checkpoint).items() if not isinstance(v, Path)}
        arrived = None
        if any(buffer.is_pinned() for buffer in self._taken.values()):
            arrived = torch.cuda.Event()
            arrived.record()
        return Copied(replace(checkpoint, **fields), arrived)

    def _copied(self, place: tuple[Any, ...], value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._copied_tensor(place, value)
        if isinstance(value, Mapping):
            return {k: self._copied((*place, k), v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._copied((*place, i), v) for i, v in enumerate(value))
        return value

    def _copied_tensor(self, place: tuple[Any, ...], tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        # What the model shares under two names is copied, and then written, once.
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else place
        if same not in self._taken:
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                self._buffers[place] = buffer
            self._taken[same] = buffer.copy_(tensor, non_blocking=True)
        return self._taken[same]
