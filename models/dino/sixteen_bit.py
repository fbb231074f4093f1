"""Mixed precision with few launches: a module's parameters go to 16 bit together, not one by one where used.

Under autocast a layer of a transformer casts each weight, each bias and most activations on its own, which
costs a GPU's host more time than the products take. A module that is called through `in_sixteen_bit`
computes in 16 bit from end to end; what must not (positions, boxes) stays outside or says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.dino.layers import without_autocast


class _Copies(torch.autograd.Function):
    """Copies in another floating type, and gradients in the tensors' own: one operator each way."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [t.dtype for t in tensors]
        copies = [torch.empty_like(t, dtype=dtype) for t in tensors]
        torch._foreach_copy_(copies, tensors)
        ctx.mark_non_differentiable(*(c for c, t in zip(copies, tensors, strict=True) if not t.requires_grad))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [(i, g) for i, g in enumerate(gradients) if g is not None]
        result: list[Tensor | None] = [None] * len(gradients)
        if given:
            whole = [torch.empty_like(g, dtype=ctx.dtypes[i]) for i, g in given]
            torch._foreach_copy_(whole, [g for _, g in given])
            for (i, _), gradient in zip(given, whole, strict=True):
                result[i] = gradient
        return None, *result


def autocast_type(device: torch.device) -> torch.dtype | None:
    """The 16-bit type of the autocast in force on a device; None where there is none."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def exact_convolutions(images: Tensor, stride: float) -> AbstractContextManager[None]:
    """Turns autocast off on a CPU for images (B, 3, H, W) so narrow that a map may have a single column.

    oneDNN's AMX kernels (torch 2.11) fill such a column with other numbers, NaN among them, where a
    convolution with a stride makes it in bfloat16.
    stride: of a whole network; its convolutions may or may not be padded.
    """
    narrow = (
        images.device.type == "cpu"
        and autocast_type(images.device) is not None
        and images.shape[-1] <= 2 * stride
    )
    return without_autocast(images.device) if narrow else nullcontext()


def sixteen_bit(parameters: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies by name. Gradients reach the parameters, in their type, when all of the copies have theirs."""
    return (
        dict(zip(parameters, _Copies.apply(dtype, *parameters.values()), strict=True)) if parameters else {}
    )


def in_sixteen_bit(module: nn.Module, device: torch.device, *arguments: Any) -> Any:
    """`module(*arguments)`; under autocast with 16-bit copies of its parameters, and no autocast inside.

    The module's activations come in 16 bit then. float64 parameters are left as they are.
    """
    dtype = autocast_type(device)
    if dtype is None:
        return module(*arguments)
    named = module.named_parameters(remove_duplicate=False)
    parameters = {name: p for name, p in named if p.dtype == torch.float32}
    with without_autocast(device):
        return functional_call(module, sixteen_bit(parameters, dtype), arguments, tie_weights=False)
