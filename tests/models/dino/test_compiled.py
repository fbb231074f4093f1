"""Compiled layers: one graph for all images, the same losses and gradients."""

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.cpp_builder import cpp_compiler_search

from models.dino import compiled
from models.dino.compiled import compile_layers
from tests.models.tiny import SIZES, build, make_images, targets, tiny_config
from util.errors import UserError

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("fresh_compiler")


def step(parts, size, counts, dtype=None) -> tuple[dict, dict]:
    """Losses and gradients of one training step."""
    images, given = make_images((size, SIZES[1])), targets(counts)
    torch.manual_seed(3)
    parts.model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        semantic = parts.teacher(images, given)
        output = parts.model(images, given)
    losses = parts.criterion(output, given, semantic)
    losses.total.backward()
    return losses.named, {name: p.grad for name, p in parts.model.named_parameters()}


# Sizes and counts of boxes; the number of denoising queries follows from the latter.
BATCHES = [((64, 96), (2, 1)), ((96, 64), (3, 0)), ((64, 64), (1, 1)), ((96, 128), (5, 2))]


def differences(tmp_path, backend: str, dtype=None, **changes) -> float:
    """The largest one of losses, of the largest loss, and of gradients, over all batches."""
    config = tiny_config(enc_layers=2, dec_layers=3, **changes)
    plain, graphs = build(config, tmp_path), build(config, tmp_path)
    graphs.model.load_state_dict(plain.model.state_dict())
    assert graphs.model.state_dict().keys() == plain.model.state_dict().keys()
    compile_layers(graphs.model, CPU, backend)
    largest = 0.0
    for size, counts in BATCHES:
        both = (step(parts, size, counts, dtype) for parts in (plain, graphs))
        for expected, found in zip(*both, strict=True):
            assert expected.keys() == found.keys()
            # Of all: the gradient of a bias before a norm is nothing but rounding.
            scale = max(float(t.detach().abs().max()) for t in expected.values())
            errors = [(t - found[name]).detach().abs().max() for name, t in expected.items()]
            largest = max(largest, float(max(errors)) / scale)
    return largest


def few_graphs() -> bool:
    """Whole ones. The decoder may need two: the rows of a mask for 8 N queries have no gaps."""
    return 2 <= counters["stats"]["unique_graphs"] <= 3 and not counters["graph_break"]


def test_few_graphs_for_images_of_all_sizes(tmp_path):
    assert differences(tmp_path, "eager") < 1e-6
    assert few_graphs()


@pytest.mark.ci
@pytest.mark.parametrize("changes", [{}, {"use_checkpoint": True}, {"dtype": torch.bfloat16}])
def test_with_gradients_in_graphs_too(changes, tmp_path):
    assert differences(tmp_path, "aot_eager", **changes) < (0.05 if "dtype" in changes else 1e-5)
    assert few_graphs()


def test_a_compiler_that_is_missing_is_named(monkeypatch, tmp_path):
    model = build(tiny_config(), tmp_path).model
    cpp_compiler_search.cache_clear()  # what another test has found
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"torch\.compile needs a C\+\+"):
        compile_layers(model, CPU)
    monkeypatch.setattr(compiled, "has_triton", lambda: False)
    with pytest.raises(UserError, match="needs Triton"):
        compile_layers(model, torch.device("cuda"))


@pytest.mark.ci
def test_compiled_code(tmp_path):
    assert differences(tmp_path, "inductor") < 1e-5
    assert few_graphs()


@pytest.mark.ci
def test_compiled_code_is_as_exact_in_sixteen_bit(tmp_path):
    """Of the encoder: what the detector chooses from its numbers may differ with the last bit."""
    model = build(tiny_config(enc_layers=2), tmp_path).model
    shapes = ((8, 12), (4, 6), (2, 3), (1, 2))
    direction = torch.randn(2, sum(h * w for h, w in shapes), 32)

    def encode(dtype=None) -> list:
        levels = [torch.randn(2, 32, *shape, requires_grad=True) for shape in shapes]
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            tokens = model.encoder(levels, torch.zeros(2, 64, 96, dtype=torch.bool)).tokens
        wanted = [*levels, *model.encoder.parameters()]
        return [tokens.detach(), *torch.autograd.grad((tokens.float() * direction).sum(), wanted)]

    def error(found: list) -> float:
        return max(float((a.float() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))

    torch.manual_seed(0)
    exact = encode()
    torch.manual_seed(0)
    eager = error(encode(torch.bfloat16))
    compile_layers(model, CPU)
    torch.manual_seed(0)
    assert error(encode(torch.bfloat16)) < 1.5 * eager
