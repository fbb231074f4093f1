"""Who takes part: our op, and what it is measured against. Each is `attend(inputs) -> (B, Q, H * C)`."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from models.dino.ops import extension, ms_deform_attn, ms_deform_attn_fused
from models.dino.ops.compiler import BuildError

from . import plain
from .inputs import Inputs, level_tensors

Attend = Callable[[Inputs], Tensor]


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
    try:
        from deformops.registry import msda
    except ImportError as error:
        raise AbsentError(f"not installed ({error})") from error

    def attend(inputs: Inputs) -> Tensor:
        levels = level_tensors(inputs.shapes, inputs.value.device)
        return msda(inputs.value, *levels, *inputs.plain())

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
            present[name] = make(device)
        except AbsentError as error:
            absent[name] = str(error)
    return present, absent


def require_kernels(device: str) -> str:
    """Where our compiled kernels come from. Raises `RuntimeError` when it would be the reference."""
    status = extension.status(device)
    if not status.compiled:
        raise RuntimeError(f"no compiled kernels for {device}: {status.reason}")
    return status.reason
