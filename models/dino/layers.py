"""Small layers and helpers that several modules share."""

import copy
import itertools
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.dino.ops.linear import Linear

_Module = TypeVar("_Module", bound=nn.Module)

# As the official release. DETR's 1e-5 gives different boxes near 0 and 1.
INVERSE_SIGMOID_EPS = 1e-3


def inverse_sigmoid(x: Float[Tensor, "*shape"], eps: float = INVERSE_SIGMOID_EPS) -> Float[Tensor, "*shape"]:
    """log(x / (1 - x)) of x clamped to 0..1; numerator and denominator are each clamped to at least `eps`."""
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def with_children(module: _Module, **children: nn.Module) -> _Module:
    """A copy of a module with some of its children exchanged; the others, and all tensors, are shared."""
    result = copy.copy(module)
    # A shallow copy has the very dicts of the original, its hooks among them.
    result.__dict__.update({k: v.copy() for k, v in module.__dict__.items() if isinstance(v, dict)})
    result._modules.update(children)
    return result


class MLP(nn.Module):
    """`depth` linear layers with ReLU between them: (..., input) -> (..., output)."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, depth: int):
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (depth - 1) + [output_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 where it is in 16 bit; itself otherwise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Turns autocast off where it is on. Where it is not, an exported graph keeps no trace of this."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def box_head(dim: int) -> MLP:
    """The three-layer box regressor. Its output starts at zero: boxes start as their reference boxes."""
    head = MLP(dim, dim, 4, depth=3)
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head
