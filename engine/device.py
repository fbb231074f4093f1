"""Batches on their device, precision, memory."""

import contextlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from util.errors import UserError
from util.structures import Batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, normalised there; copies from pinned memory do not wait."""
    images, targets = batch
    images = images.to(device, non_blocking=True).normalised()
    return images, targets.to(device, non_blocking=True)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Mixed precision of the 16-bit type `dtype`; None computes as the weights are."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def use_tf32(on: bool) -> None:
    """Whether CUDA's float32 matrix products and convolutions are computed in TF32. For the whole process."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def peak_memory(device: torch.device) -> int:
    """Bytes: the most the GPU's tensors took, or the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> None:
    """From now on `peak_memory` counts anew; on a CPU where the system can (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory_at_hand(device: torch.device, ranks_here: int = 1) -> int:
    """Bytes that this process may have in all: what it has, and its share of what is free.

    ranks_here: processes of the run that share a machine's memory. A GPU belongs to one of them.
    Raises UserError where the system does not say (only Linux does).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        status, system = (_kilobytes(Path(f"/proc/{name}")) for name in ("self/status", "meminfo"))
        resident, free = status["VmRSS"], system["MemAvailable"]
    except (OSError, KeyError):
        raise UserError(
            "batch_size='auto': this system does not say its free memory: give a number"
        ) from None
    return resident + min(free, _free_in_container()) // ranks_here


def _kilobytes(file: Path) -> dict[str, int]:
    """The sizes in a file of lines like `VmRSS:  12 kB`, in bytes."""
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[-1] == "kB"}


def _free_in_container() -> int:
    """What a container's limit leaves (cgroup 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        most, taken = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return sys.maxsize
    return sys.maxsize if most == "max" else int(most) - int(taken)
