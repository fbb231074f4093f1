"""Gradients over several batches and several ranks."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class _Anchor(torch.autograd.Function):
    """The identity of a loss that also sends a zero gradient to every given parameter."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.kinds = [(p.shape, p.dtype) for p in parameters]
        ctx.zeros = {dtype: loss.new_zeros((), dtype=dtype) for dtype in {p.dtype for p in parameters}}
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        # Expanded zeros take no memory; where a parameter has a real gradient they are added to it.
        return gradient, *(ctx.zeros[dtype].expand(shape) for shape, dtype in ctx.kinds)


def touch_all_parameters(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The same loss, with every parameter in its graph.

    DistributedDataParallel waits for the gradient of every parameter. A batch without boxes leaves some
    of them (denoising, semantic branch) out of the loss, on one rank but not on another, and the ranks
    would wait for each other for ever. `find_unused_parameters` does not help: it looks at the model's
    outputs, and whether an output is used is decided by the criterion, outside of the model.
    """
    return _Anchor.apply(loss, *parameters)


def fix_bucket_order(model: DistributedDataParallel) -> None:
    """Lets DistributedDataParallel arrange its buckets now, in an order that only the model decides.

    It arranges them by the first backward pass of the process, and a sum over three ranks or more depends on
    the place in the bucket: a resumed run, whose first pass is another one, would differ in the last bits.
    From the last parameter to the first is about the order in which gradients arrive.
    """
    module = model.module
    module.forward = lambda: torch.zeros((), requires_grad=True)
    try:
        loss = model()
    finally:
        del module.forward
    for parameter in module.parameters():
        if parameter.requires_grad:
            loss = touch_all_parameters(loss, [parameter])
    loss.backward()
    module.zero_grad(set_to_none=True)


def fill_missing_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Zero where a parameter has no gradient: one process then steps exactly as several do."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def maybe_no_sync(model: nn.Module, last: bool) -> AbstractContextManager:
    """Around forward and backward of a batch: ranks exchange gradients only at the last of a group."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def micro_batches_in_step(iteration: int, iterations: int, accumulate_steps: int) -> int:
    """How many batches share the optimizer step of `iteration`: fewer in the last group of an epoch.

    7 iterations in threes: 3 3 3 3 3 3 1.
    """
    start = iteration // accumulate_steps * accumulate_steps
    return min(accumulate_steps, iterations - start)
