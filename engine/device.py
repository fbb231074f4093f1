"""Batches on their device, precision, memory."""

import sys
from contextlib import AbstractContextManager

import torch

from util.structures import Batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, normalised there; copies from pinned memory do not wait."""
    images, targets = batch
    images = images.to(device, non_blocking=True).normalised()
    return images, targets.to(device, non_blocking=True)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Mixed precision of the 16-bit type `dtype`; None computes as the weights are."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most the GPU's tensors took, or the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
