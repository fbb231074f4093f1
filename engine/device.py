"""Batches on their device, precision, memory."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from engine.protocols import Batch
from util.structures import PaddedImages, Target


def to_device(batch: Batch, device: torch.device) -> tuple[PaddedImages, tuple[Target, ...]]:
    """The batch on `device`, normalised there; copies from pinned memory do not wait."""
    images, targets = batch
    images = images.to(device, non_blocking=True).normalised()
    return images, tuple(t.to(device, non_blocking=True) for t in targets)


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


def image_ids(targets: Sequence[Target]) -> list[int]:
    return [int(t.image_id) for t in targets]
