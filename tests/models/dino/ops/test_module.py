import math

import pytest
import torch

from models.dino.ops import MSDeformAttn

SHAPES = [(6, 9), (3, 5)]
TOKENS = sum(h * w for h, w in SHAPES)


def test_initialisation_spreads_heads_over_directions():
    module = MSDeformAttn(dim=32, levels=2, heads=4, points=3)
    bias = module.sampling_offsets.bias.view(4, 2, 3, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(3):
        for level in range(2):
            torch.testing.assert_close(bias[:, level, point], expected * (point + 1), atol=1e-6, rtol=0)
    assert module.sampling_offsets.weight.abs().max() == 0
    assert module.attention_weights.bias.abs().max() == 0
    bound = math.sqrt(6 / 64)
    assert 0.8 * bound < module.value_proj.weight.abs().max() <= bound


def test_parameter_names_are_those_of_deformable_detr():
    names = {name for name, _ in MSDeformAttn(dim=32, levels=2, heads=4, points=3).named_parameters()}
    parts = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    assert names == {f"{part}.{leaf}" for part in parts for leaf in ("weight", "bias")}


@pytest.mark.parametrize("columns", [2, 4])
def test_padding_counts_as_zero_value(columns):
    torch.manual_seed(0)
    module = MSDeformAttn(dim=32, levels=2, heads=4, points=3).double()
    query = torch.randn(2, 7, 32, dtype=torch.float64)
    memory = torch.randn(2, TOKENS, 32, dtype=torch.float64)
    reference = torch.rand(2, 7, 2, columns, dtype=torch.float64)
    mask = torch.zeros(2, TOKENS, dtype=torch.bool)
    mask[1, 5:40] = True
    output = module(query, reference, memory, SHAPES, mask)
    changed = memory.clone()
    changed[1, 5:40] = 1e6
    torch.testing.assert_close(module(query, reference, changed, SHAPES, mask), output)
    assert not torch.allclose(module(query, reference, memory, SHAPES), output)


def test_dim_must_be_divisible_by_heads():
    with pytest.raises(ValueError, match="dim 30 is not divisible by heads 4"):
        MSDeformAttn(dim=30, heads=4)
