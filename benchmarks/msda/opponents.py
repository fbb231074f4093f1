"""Who takes part: our op, and what it is measured against. Each is `attend(inputs) -> (B, Q, H * C)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.dino.ops import extension, ms_deform_attn, ms_deform_attn_fused
from models.dino.ops.compiler import BuildError
from models.dino.ops.reference import sampling_locations

from . import plain
from .inputs import LOCAL, Inputs, Workload, level_tensors, make_inputs

Attend = Callable[[Inputs], Tensor]
OURS = "ours"
# Those that compute in 16 bit where we do; the others get the same numbers in float32.
SIXTEEN_BIT = (OURS, "deformops")
# What an opponent must compute, forward and backward, before it takes part.
_TRIAL = Workload(((6, 9), (3, 5)), dim=64, heads=2, points=4, queries=None)


class AbsentError(Exception):
    """This opponent cannot take part here; the message says why in one line."""


def ours(inputs: Inputs) -> Tensor:
    if inputs.reference is None:
        return ms_deform_attn(inputs.value, inputs.shapes, inputs.positions, inputs.attention)
    return ms_deform_attn_fused(
        inputs.value, inputs.shapes, inputs.positions, inputs.attention, inputs.reference
    )


def grid_sample(inputs: Inputs) -> Tensor:
    """`F.grid_sample` level by level, each summed at once: faster and smaller than stacking all samples."""
    locations, weights = inputs.plain()
    batch, _, heads, channels = inputs.value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = 2 * locations - 1
    values = inputs.value.split([height * width for height, width in inputs.shapes], dim=1)
    output = None
    for level, (height, width) in enumerate(inputs.shapes):
        image = values[level].permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        weight = weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, queries, points)
        sampled = (F.grid_sample(image, grid, align_corners=False) * weight).sum(-1)
        output = sampled if output is None else output + sampled
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def _plain(device: str) -> Attend:
    if device != "cuda":
        raise AbsentError("runs on GPUs only")
    try:
        return plain.attention(plain.load())
    except (BuildError, OSError) as error:
        raise AbsentError(str(error)) from error


def _transformers(device: str) -> Attend:
    try:
        from transformers.models.deformable_detr import modeling_deformable_detr as found
    except ImportError as error:
        raise AbsentError(f"not installed ({error})") from error
    module = found.MultiScaleDeformableAttention()

    def attend(inputs: Inputs) -> Tensor:
        shapes, starts = level_tensors(inputs.shapes, inputs.value.device)
        return module(inputs.value, shapes, list(inputs.shapes), starts, *inputs.plain(), 64)

    return attend


def _deformops(device: str) -> Attend:
    """deformops 3: Triton or CUDA kernels on a GPU, PyTorch elsewhere; the softmax is in its kernel."""
    try:
        from deformops.registry import msda
    except (ImportError, SyntaxError) as error:  # its source needs Python 3.12
        raise AbsentError(f"not installed ({error})") from error

    def attend(inputs: Inputs) -> Tensor:
        levels = level_tensors(inputs.shapes, inputs.value.device)
        if inputs.reference is None:
            return msda(inputs.value, *levels, *inputs.plain())
        locations = sampling_locations(list(inputs.shapes), inputs.positions, inputs.reference)
        return msda(inputs.value, *levels, locations, inputs.attention, softmax=True)

    return attend


_MAKERS = {
    "grid_sample": lambda device: grid_sample,
    "plain": _plain,
    "transformers": _transformers,
    "deformops": _deformops,
}


def opponents(device: str) -> tuple[dict[str, Attend], dict[str, str]]:
    """Those that can take part on this kind of device, and why the others cannot."""
    present, absent = {}, {}
    for name, make in _MAKERS.items():
        try:
            attend = make(device)
            _require_run(name, attend, device)
        except AbsentError as error:
            absent[name] = str(error)
        else:
            present[name] = attend
    return present, absent


def _require_run(name: str, attend: Attend, device: str) -> None:
    """Raises AbsentError where a small pass fails: a package can be there and its kernels not run."""
    dtypes = (torch.float32, torch.bfloat16) if name in SIXTEEN_BIT else (torch.float32,)
    for dtype in dtypes:
        inputs = make_inputs(_TRIAL, LOCAL, fused=True, dtype=dtype, device=device).trainable()
        try:
            output = attend(inputs)
            torch.autograd.grad(output, inputs.leaves, torch.ones_like(output))
        except Exception as error:
            what = str(error).strip().partition("\n")[0]
            raise AbsentError(f"does not run in {dtype}: {type(error).__name__}: {what}") from error


def require_kernels(device: str) -> str:
    """Where our compiled kernels come from. Raises `RuntimeError` when it would be the reference."""
    status = extension.status(device)
    if not status.compiled:
        raise RuntimeError(f"no compiled kernels for {device}: {status.reason}")
    return status.reason
