"""Float16 in exported graphs: where most of the weights and of the work are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.dino.ops.linear import Linear


class _HalfLinear(nn.Module):
    """A linear layer with weights and product in float16, between float32."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().half())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().half())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.half(), self.weight, self.bias).float()


class _HalfConv2d(_HalfLinear):
    """The same for a convolution."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        assert isinstance(layer.padding, tuple)
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x.half(), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return y.float()


def to_half(module: nn.Module) -> nn.Module:
    """The same module, its linear layers and convolutions replaced by ones in float16.

    What autocast keeps in float32 stays there: class logits, normalisation, boxes, sampling positions. So do
    other subclasses, such as a linear classifier, and attention among queries, which reads its layers'
    weights.
    """
    for name, child in module.named_children():
        if type(child) is nn.Linear or type(child) is Linear:
            setattr(module, name, _HalfLinear(child))
        elif type(child) is nn.Conv2d and isinstance(child.padding, tuple):
            setattr(module, name, _HalfConv2d(child))
        else:
            to_half(child)
    return module
