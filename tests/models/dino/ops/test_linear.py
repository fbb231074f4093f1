"""Linear layers through oneDNN are linear layers."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models.dino.ops import linear as ops_linear
from models.dino.ops.linear import LEAST, Linear, linear, product

ROWS, WIDTH, OUT = 128, 256, 192


class Products(TorchDispatchMode):
    """The names of all operators that multiply matrices."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._overloadpacket.__name__
        if name in ("mm", "addmm", "bmm", "_linear_pointwise"):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def through_onednn(monkeypatch):
    """As on the CPUs where it pays; all others compute the same by it, only not faster."""
    monkeypatch.setattr(ops_linear, "_mkl_is_slow", lambda: True)


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (2, ROWS // 2, WIDTH), (2, 1, ROWS // 2, WIDTH)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients(shape, has_bias):
    assert ROWS * WIDTH * OUT >= LEAST
    layer = Linear(WIDTH, OUT, bias=has_bias)
    x, direction = numbers(*shape).requires_grad_(), numbers(*shape[:-1], OUT, seed=1)
    wanted = [x, *layer.parameters()]
    with Products() as products:
        output = layer(x)
        found = torch.autograd.grad(output, wanted, direction)
    assert products.names == ["_linear_pointwise"] * 3
    exact = [t.detach().double().requires_grad_() for t in wanted]
    true = F.linear(exact[0], exact[1], exact[2] if has_bias else None)
    gradients = torch.autograd.grad(true, exact, direction.double())
    for a, b in zip((output, *found), (true, *gradients), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * float(b.detach().abs().max()))


@pytest.mark.parametrize("trained", ["x", "weight", "bias"])
def test_only_what_is_asked_for(trained):
    tensors = {"x": numbers(ROWS, WIDTH), "weight": numbers(OUT, WIDTH, seed=1), "bias": numbers(OUT, seed=2)}
    tensors[trained].requires_grad_()
    with Products() as products:
        linear(**tensors).sum().backward()
    assert len(products.names) == (1 if trained == "bias" else 2)
    assert [name for name, t in tensors.items() if t.grad is not None] == [trained]


def test_strided_operands():
    """Columns of a wider tensor, a transposed weight, and a step between rows."""
    x, weight = numbers(ROWS, 2 * WIDTH)[:, ::2], numbers(WIDTH, OUT, seed=1).T
    with Products() as products:
        found = product(x, weight)
    assert products.names == ["_linear_pointwise"]
    torch.testing.assert_close(found, F.linear(x, weight), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "x",
    [
        numbers(ROWS, WIDTH, dtype=torch.float64),
        numbers(ROWS, WIDTH, dtype=torch.bfloat16),
        numbers(2, WIDTH),
        numbers(0, WIDTH),
        numbers(WIDTH),
    ],
    ids=["float64", "bfloat16", "few", "none", "vector"],
)
def test_what_stays_with_pytorch(x):
    weight = numbers(OUT, WIDTH, dtype=x.dtype, seed=1)
    with Products() as products:
        found = linear(x, weight)
    assert "_linear_pointwise" not in products.names
    assert torch.equal(found, F.linear(x, weight))


def test_under_autocast_it_is_sixteen_bit():
    x, weight = numbers(ROWS, WIDTH), numbers(OUT, WIDTH, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_what_only_stands_for_a_tensor():
    with FakeTensorMode():
        assert linear(torch.empty(ROWS, WIDTH), torch.empty(OUT, WIDTH)).shape == (ROWS, OUT)
    x, weight = numbers(ROWS, WIDTH), numbers(OUT, WIDTH, seed=1)
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weight), F.linear(x, weight))
