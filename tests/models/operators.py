"""Counts what a computation dispatches and keeps: on a GPU each operator is a launch of some microseconds."""

from collections import Counter

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts what is dispatched, by name, but for views and allocations."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returns = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        name = func._schema.name
        if not view and not any(word in name for word in ("empty", "lift_fresh", "detach")):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class SavedBytes:
    """Counts the bytes that autograd keeps for the backward pass, each storage once, without parameters."""

    def __init__(self):
        self.storages = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            # The tensor is held, or another could take its place in memory.
            self.storages[tensor.untyped_storage()._cdata] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.storages.values())

    def __enter__(self):
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception):
        self._hooks.__exit__(*exception)
