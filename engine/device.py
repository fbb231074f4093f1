"""Batches on their device, precision, memory."""

import functools
import logging
import platform
import sys
from contextlib import AbstractContextManager

import torch

from util.structures import Batch

_log = logging.getLogger(__name__)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, normalised there; copies from pinned memory do not wait."""
    images, targets = batch
    images = images.to(device, non_blocking=True).normalised()
    return images, targets.to(device, non_blocking=True)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Mixed precision of the 16-bit type `dtype`; None computes as the weights are."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def autocast_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type `name` of mixed precision; None, float32, for bfloat16 on a CPU that emulates it."""
    if name == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        _warn_of_emulation()
        return None
    return getattr(torch, name)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16: x86 with AVX512_BF16 (all with AMX have it), ARM with BF16.

    Others emulate it: with AVX2, a convolution took 26 times as long as in float32. oneDNN calls bfloat16
    supported on plain AVX512 too, but has to convert to float32 and back there.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@functools.cache
def _warn_of_emulation() -> None:
    _log.info("amp: this CPU only emulates bfloat16, which is slower than float32: computing in float32")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most the GPU's tensors took, or the largest resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
