"""Counts what a computation dispatches and keeps: on a GPU each operator is a launch of some microseconds."""

from collections import Counter

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_LAUNCH = ("empty", "lift_fresh", "detach", "record_function")


class Operators(TorchDispatchMode):
    """Counts what is dispatched, by name, but for views and allocations."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returns = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        name = func._schema.name
        if not view and not any(word in name for word in _NO_LAUNCH):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Transfers(TorchDispatchMode):
    """Collects the copies of tensors from one device to another, as 'cpu -> cuda' with a shape.

    blocking: those that wait until the GPU has done everything before.
    """

    def __init__(self):
        super().__init__()
        self.all, self.blocking = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        for made in (value for value in tree_leaves(result) if isinstance(value, torch.Tensor)):
            # A number in memory of the CPU is an argument of the launch.
            for tensor in given:
                if tensor.device.type != made.device.type and tensor.dim():
                    found = f"{tensor.device.type} -> {made.device.type} {tuple(tensor.shape)}"
                    self.all.append(found)
                    if not (kwargs or {}).get("non_blocking"):
                        self.blocking.append(found)
        return result


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
