"""Layers in 16 bit: few casts, the parameters' own type for gradients, and nothing new without autocast."""

import pytest
import torch
from torch import nn

from benchmarks.operators import Operators
from models.dino.layers import MLP
from models.dino.sixteen_bit import autocast_type, in_sixteen_bit
from tests.models.tiny import build, make_images, targets, tiny_config

CPU = torch.device("cpu")


def block() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(MLP(16, 32, 16, depth=2), nn.LayerNorm(16)), torch.randn(2, 5, 16)


def test_without_autocast_it_is_a_plain_call():
    module, x = block()
    assert autocast_type(CPU) is None
    assert torch.equal(in_sixteen_bit(module, CPU, x), module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_everything_inside_is_in_16_bit_and_gradients_are_not(dtype):
    module, x = block()
    seen = []
    for part in (*module[0].layers, module[1]):
        part.register_forward_hook(
            lambda part, inputs, output: seen.append((inputs[0].dtype, part.weight.dtype, output.dtype))
        )
    with torch.autocast("cpu", dtype):
        output = in_sixteen_bit(module, CPU, x.to(dtype))
    assert seen == [(dtype,) * 3] * 3
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (output.float() * direction).sum().backward()
    exact, again = block()
    (exact(again) * direction).sum().backward()
    for (name, own), other in zip(module.named_parameters(), exact.parameters(), strict=True):
        assert own.dtype == own.grad.dtype == torch.float32, name
        assert (own.grad - other.grad).norm() < 0.05 * other.grad.norm(), name


def test_one_operator_makes_all_copies_and_one_all_gradients():
    module, x = block()
    x = x.bfloat16()
    with Operators() as forward, torch.autocast("cpu", torch.bfloat16):
        output = in_sixteen_bit(module, CPU, x)
    with Operators() as backward:
        output.sum().backward()
    for counts in (forward.counts, backward.counts):
        assert counts["aten::_foreach_copy_"] == 1 and counts["aten::_to_copy"] == 0


def test_frozen_and_unused_parameters_and_those_of_float64():
    module, x = block()
    module[0].layers[0].weight.requires_grad_(False)
    module.spare = nn.Parameter(torch.ones(3))
    module.__class__ = type("First", (nn.Sequential,), {"forward": lambda self, x: self[1](self[0](x))})
    with torch.autocast("cpu", torch.bfloat16):
        in_sixteen_bit(module, CPU, x.bfloat16()).sum().backward()
    assert module[0].layers[0].weight.grad is None and module.spare.grad is None
    assert module[0].layers[1].weight.grad is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert in_sixteen_bit(nn.LayerNorm(16).double(), CPU, x.double()).dtype == torch.float64


@pytest.mark.parametrize("size", [(160, 34), (192, 64)])
def test_narrow_images_give_what_they_give_in_float32(size, tmp_path):
    """Convolutions with a stride, in bfloat16 on a CPU with AMX, get maps of one column wrong."""
    parts = build(tiny_config(), tmp_path)
    model, images, given = parts.model.eval(), make_images((size,)), targets((2,))
    with torch.no_grad():
        whole, teaching = model.encode(images).tokens, parts.teacher(images, given).ground_truth
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half, taught = model.encode(images).tokens, parts.teacher(images, given).ground_truth
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.1)
    torch.testing.assert_close(taught.float(), teaching, rtol=0.05, atol=0.02)
