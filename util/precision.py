"""The 16-bit type of mixed precision: what was asked for, and what the device is fast in."""

import functools
import logging
import platform
from dataclasses import dataclass

import torch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """dtype: 16-bit type of mixed precision, None for float32.  why: in words."""

    dtype: torch.dtype | None
    why: str

    def __str__(self) -> str:
        return f"{str(self.dtype or torch.float32).removeprefix('torch.')} ({self.why})"


def choose_precision(amp: bool | str, name: str, device: torch.device) -> Precision:
    """What the keys `amp` (True, False or 'auto') and `amp_dtype` (`name`) mean on a device.

    'auto' is 16 bit where the device multiplies in that type itself. True is float32 only where a CPU would
    have to emulate bfloat16.
    """
    if amp is False:
        return Precision(None, "amp=False")
    kind = "GPU" if device.type == "cuda" else "CPU"
    native = _is_native(name, device)
    if native or (amp is True and (name, kind) != ("bfloat16", "CPU")):
        how = f"this {kind} multiplies in it" if native else f"amp_dtype={name!r}"
        return Precision(getattr(torch, name), f"amp={amp!r}: {how}")
    return Precision(None, f"amp={amp!r}: this {kind} does not multiply in {name} itself")


def _is_native(name: str, device: torch.device) -> bool:
    """Whether a device multiplies in a 16-bit type. A CPU's float16 does not count: it is slow on most."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return name == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    return name == "bfloat16" and cpu_has_bfloat16()


def autocast_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit type `name` that was asked for; None, float32, for bfloat16 on a CPU that emulates it."""
    dtype = choose_precision(True, name, device).dtype
    if dtype is None:
        _warn_of_emulation()
    return dtype


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
    _log.info("this CPU only emulates bfloat16, which is slower than float32: computing in float32")
