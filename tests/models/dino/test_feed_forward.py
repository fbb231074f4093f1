"""The feed-forward block that recomputes its hidden map is the plain one: same values, same gradients."""

import pytest
import torch
from torch import nn

from benchmarks.operators import SavedBytes
from models.dino.feed_forward import ROWS, FeedForward

DIM, HIDDEN = 8, 32


def block(recompute: bool = True, dropout: float = 0.0, dtype=torch.float32) -> nn.ModuleList:
    """A feed-forward block, and a norm that changes something."""
    torch.manual_seed(0)
    ffn, norm = FeedForward(DIM, HIDDEN, dropout, recompute), nn.LayerNorm(DIM)
    for parameter in (*norm.parameters(), ffn.linear1.bias, ffn.linear2.bias):
        nn.init.normal_(parameter)
    return nn.ModuleList((ffn, norm)).to(dtype)


def outcome(parts: nn.ModuleList, rows: int) -> tuple[torch.Tensor, list, int]:
    """Output for two images, gradients of input and parameters, and bytes kept for the backward pass."""
    generator = torch.Generator().manual_seed(1)
    dtype = parts[1].weight.dtype
    x, direction = (torch.randn(2, rows, DIM, generator=generator).to(dtype) for _ in range(2))
    x.requires_grad_()
    with SavedBytes() as saved:
        output = parts[0](x, parts[1])
    wanted = [x, *(p for p in parts.parameters() if p.requires_grad)]
    return output, list(torch.autograd.grad(output, wanted, direction)), saved.bytes


@pytest.mark.parametrize("rows", [0, 1, 7, ROWS // 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_and_less_that_is_kept(rows, dtype):
    plain, gradients, kept = outcome(block(False, dtype=dtype), rows)
    again, same, fewer = outcome(block(dtype=dtype), rows)
    assert torch.equal(plain, again)
    assert [torch.equal(a, b) for a, b in zip(gradients, same, strict=True)] == [True] * len(gradients)
    assert fewer <= kept / (1 + HIDDEN / DIM / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_many_parts_are_as_exact_as_one(dtype):
    count = 8 * ROWS + 1
    _, exact, _ = outcome(block(False, dtype=torch.float64), count)
    plain, gradients, _ = outcome(block(False, dtype=dtype), count)
    again, close, _ = outcome(block(dtype=dtype), count)
    torch.testing.assert_close(again, plain)
    for true, expected, found in zip(exact, gradients, close, strict=True):
        tolerance = (true - expected).norm() + 3 * torch.finfo(dtype).eps * true.norm()
        assert (true - found).norm() <= tolerance


@pytest.mark.parametrize("frozen", ["0.linear1.weight", "0.linear2.bias", "1.weight"])
def test_frozen_parameters(frozen):
    expected, found = block(False), block()
    for parts in (expected, found):
        parts.get_parameter(frozen).requires_grad_(False)
    for a, b in zip(outcome(expected, 5)[1], outcome(found, 5)[1], strict=True):
        assert torch.equal(a, b)


def test_dropout_in_training_only():
    ffn, norm = block(dropout=0.5)
    x = torch.randn(2, 3, DIM)
    assert torch.equal(ffn.eval()(x, norm), ffn(x, norm))
    assert not torch.equal(ffn.train()(x, norm), ffn(x, norm))


def test_under_autocast_it_is_plain():
    parts = block()
    with torch.autocast("cpu", torch.bfloat16):
        output, gradients, _ = outcome(parts, 5)
        plain, expected, _ = outcome(block(False), 5)
    assert torch.equal(output, plain)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients, strict=True))


def test_a_graph_has_plain_operators():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.ffn, self.norm = block()

        def forward(self, x):
            return self.ffn(x, self.norm)

    layer, x = Layer(), torch.randn(2, 3, DIM)
    graph = torch.export.export(layer, (x,), strict=False)
    assert "autograd" not in str(graph.graph)
    assert torch.equal(graph.module()(x), layer(x))
