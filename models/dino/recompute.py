"""Activations that backward computes again instead of keeping (the official key `use_checkpoint`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

# What can be recomputed: the backbone as one, each layer of encoder and decoder.
PARTS = ("backbone", "encoder", "decoder")


def parts_to_recompute(chosen: bool | str | Sequence[str]) -> tuple[str, ...]:
    """All parts, none, one, or some."""
    if isinstance(chosen, bool):
        return PARTS if chosen else ()
    return (chosen,) if isinstance(chosen, str) else tuple(chosen)


def recomputed(wanted: bool, function: Callable[..., Any], module: nn.Module, *arguments: Any) -> Any:
    """`function(module, *arguments)`; if wanted, and where there are gradients, only the arguments are kept.

    Random numbers and autocast are the same when it runs again, and batch norms count a batch once.
    """
    if not wanted or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(module, *arguments)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _with_spare_statistics(module)

    return checkpoint(function, module, *arguments, use_reentrant=False, context_fn=contexts)


@contextmanager
def _with_spare_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms in training update copies of their running statistics, which are then dropped."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [norm._buffers.copy() for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update({n: None if b is None else b.clone() for n, b in buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
