"""The op as PyTorch sees it: gradients, autocast, torch.compile, the operator's own rules."""

import pytest
import torch

from models.dino.ops import MSDeformAttn, ms_deform_attn, ms_deform_attn_fused

from .cases import make_case

SMALL = {"shapes": ((4, 5), (2, 3)), "queries": 5, "heads": 2, "channels": 3, "points": 2}


def flat(shapes):
    return [size for shape in shapes for size in shape]


def test_gradcheck_plain(device):
    case = make_case(**SMALL, seed=2).to(torch.float64, device)
    inputs = [x.detach().requires_grad_() for x in (case.value, case.locations, case.weights)]
    assert torch.autograd.gradcheck(
        lambda v, at, by: ms_deform_attn(v, case.shapes, at, by), inputs, nondet_tol=1e-12
    )


@pytest.mark.parametrize("columns", [2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck_fused_with_reference_points(device, columns, masked):
    case = make_case(**SMALL, columns=columns, masked=masked, seed=2).to(torch.float64, device)
    tensors = (case.value, case.offsets, case.logits, case.reference_points)
    inputs = [x.detach().requires_grad_() for x in tensors]
    assert torch.autograd.gradcheck(
        lambda v, o, a, r: ms_deform_attn_fused(v, case.shapes, o, a, r, case.mask), inputs, nondet_tol=1e-12
    )


@pytest.mark.parametrize("columns", [2, 4])
def test_opcheck(device, columns):
    case = make_case(**SMALL, columns=columns, masked=True).to(torch.float32, device)
    value, offsets, logits = (x.detach().requires_grad_() for x in (case.value, case.offsets, case.logits))
    arguments = (value, flat(case.shapes), offsets, logits, case.reference_points, case.mask)
    torch.library.opcheck(torch.ops.richsem.ms_deform_attn_fused, arguments)
    locations, weights = (x.detach().requires_grad_() for x in (case.locations, case.weights))
    torch.library.opcheck(
        torch.ops.richsem.ms_deform_attn, (value, flat(case.shapes), locations, weights.float())
    )


def test_compiles_into_one_graph(device):
    case = make_case(**SMALL, columns=4, masked=True).to(torch.float32, device)
    module = MSDeformAttn(dim=6, levels=2, heads=2, points=2).to(device)
    torch.nn.init.normal_(module.sampling_offsets.weight)
    query = torch.randn(2, 5, 6, device=device)
    memory = torch.randn(2, case.value.shape[1], 6, device=device)
    arguments = (query, case.reference_points, memory, case.shapes, case.mask)
    expected = module(*arguments)
    expected.sum().backward()
    right = module.sampling_offsets.weight.grad.clone()
    module.zero_grad()
    result = torch.compile(module, fullgraph=True, backend="aot_eager")(*arguments)
    result.sum().backward()
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(module.sampling_offsets.weight.grad, right)


def test_compiled_graph_serves_other_sizes(device):
    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def attend(value, shapes, offsets, logits, reference_points):
        return ms_deform_attn_fused(value, shapes, offsets, logits, reference_points)

    for shapes, queries in (((4, 5), (2, 3)), 5), (((6, 7), (3, 4)), 9):
        case = make_case(shapes=shapes, queries=queries, heads=2, channels=4).to(torch.float32, device)
        arguments = (case.value, case.shapes, case.offsets, case.logits, case.reference_points)
        torch.testing.assert_close(attend(*arguments), ms_deform_attn_fused(*arguments))


def test_autocast_keeps_positions_precise(device):
    case = make_case(shapes=((100, 167),), heads=2, channels=8, points=2).to(torch.float32, device)
    exact = ms_deform_attn(case.value, case.shapes, case.locations, case.weights)
    with torch.autocast(device, dtype=torch.bfloat16):
        plain = ms_deform_attn(case.value, case.shapes, case.locations, case.weights)
        fused = ms_deform_attn_fused(
            case.value, case.shapes, case.offsets, case.logits, case.reference_points
        )
    assert plain.dtype == fused.dtype == torch.bfloat16
    # A location rounded to bfloat16 would move a third of a pixel: an error near 0.3.
    assert (plain - exact).abs().max() < 0.02 * exact.abs().max()
    assert (fused - exact).abs().max() < 0.05 * exact.abs().max()


def test_autocast_gradients_come_back_in_the_parameters_type(device):
    module = MSDeformAttn(dim=16, levels=2, heads=2, points=2).to(device)
    shapes = [(4, 5), (2, 3)]
    query, memory = torch.randn(1, 7, 16, device=device), torch.randn(1, 26, 16, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        output = module(query, torch.rand(1, 7, 2, 2, device=device), memory, shapes)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    for parameter in module.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_same_bits_every_time(device):
    case = make_case(queries=300).to(torch.float32, device)
    results = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            value = case.value.detach().requires_grad_()
            output = ms_deform_attn_fused(
                value, case.shapes, case.offsets, case.logits, case.reference_points
            )
            output.square().sum().backward()
            results.append(value.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
