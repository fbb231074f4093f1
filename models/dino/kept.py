"""Tensors that follow from numbers alone, such as the shapes of levels: made once, not at every step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

from util.structures import tensors_in

_T = TypeVar("_T")


def identity(tensor: Tensor) -> Hashable:
    """Changes with the tensor and its numbers. What a fused optimizer changes does not count."""
    version = -1 if tensor.is_inference() else tensor._version
    return id(tensor), version, tensor.dtype, tensor.device


class Kept:
    """The `most` results used last, by key. The key has the device, and all that a result depends on."""

    def __init__(self, most: int = 32) -> None:
        self.most = most
        self._results: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The result of `make`, from before where there is one.

        What is traced or computed with fake tensors is made anew: sizes may be symbols there.
        """
        if torch.compiler.is_compiling():
            return make()
        result = self._results.pop(key, None)
        if result is None:
            # Also in inference mode an ordinary tensor, which training may use later.
            with torch.inference_mode(False), torch.no_grad():
                result = make()
            if any(type(tensor) is not Tensor for tensor in tensors_in(result)):
                return result
        self._results[key] = result
        if len(self._results) > self.most:
            self._results.pop(next(iter(self._results)), None)
        return result
