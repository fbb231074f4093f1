import math

import pytest
import torch

from models.dino.layers import MLP, inverse_sigmoid


def test_inverse_sigmoid_inside():
    x = torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.float64)
    assert torch.allclose(inverse_sigmoid(x).sigmoid(), x, atol=1e-12)


@pytest.mark.parametrize("outside", [0.0, -3.0])
def test_inverse_sigmoid_at_the_ends(outside):
    """The clamp is on numerator and denominator, at 1e-3: the ends become +-log(1000)."""
    x = torch.tensor([outside, 1 - outside], dtype=torch.float64)
    assert inverse_sigmoid(x).tolist() == pytest.approx([-math.log(1000), math.log(1000)])


def test_mlp_has_relu_between_layers_only():
    torch.manual_seed(0)
    mlp = MLP(3, 5, 2, depth=3).double()
    x = 5 * torch.randn(7, 3).double()
    a, b, c = mlp.layers
    expected = (((x @ a.weight.T + a.bias).clamp(min=0)) @ b.weight.T + b.bias).clamp(min=0)
    expected = expected @ c.weight.T + c.bias
    assert (expected < 0).any() and (expected > 0).any()
    assert torch.allclose(mlp(x), expected)
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(5, 3), (5, 5), (2, 5)]
