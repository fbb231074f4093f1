"""Linear layers, which on some CPUs take half of PyTorch's time in float32.

PyTorch multiplies float32 matrices on a CPU with MKL, and MKL leaves AVX-512 to Intel's own. On AMD's oneDNN,
which computes PyTorch's convolutions, is twice as fast; `torch.ops.mkldnn._linear_pointwise` (the operator
that torch.compile puts in the place of linear layers) asks it. Elsewhere these are PyTorch's linear layers.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from util.hardware import cpu_name

# Multiplications below which oneDNN's call costs more than it saves.
LEAST = 2**22


class Linear(nn.Linear):
    """nn.Linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., K), weight (N, K), bias (N,) -> (..., N), as F.linear."""
    if not (has_own_backward(x) and _pays(x, weight)):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return _onednn(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` for a function with a backward pass of its own, whose forward pass autograd does not see."""
    return _onednn(x, weight, bias) if _pays(x, weight) else F.linear(x, weight, bias)


def has_own_backward(x: Tensor) -> bool:
    """Whether a function with a backward pass of its own may take the place of plain operators on `x`.

    Not in compiled and exported graphs, which choose by themselves what they keep, and not under autocast,
    which the backward pass would not see.
    """
    graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not graph and not torch.is_autocast_enabled(x.device.type)


class _Linear(torch.autograd.Function):
    """A linear layer whose gradients are made by `product` too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            product(grad, weight.T) if needs[0] else None,
            product(rows.T, x.flatten(0, -2).T) if needs[1] else None,
            rows.sum(0) if needs[2] else None,
        )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _pays(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dim() > 1
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LEAST
        # Tensors that only stand for others have no memory for oneDNN.
        and type(x) is Tensor
        and _mkl_is_slow()
    )


@functools.cache
def _mkl_is_slow() -> bool:
    """Whether this is AMD's CPU with AVX-512, and PyTorch multiplies with MKL but has oneDNN."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AMD" in cpu_name()
    )
