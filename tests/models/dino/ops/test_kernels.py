"""The compiled kernels against the reference in float64, on every kind of device at hand."""

import pytest
import torch

from models.dino.ops import ms_deform_attn, ms_deform_attn_fused
from models.dino.ops.reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

from .cases import Case, make_case

# Largest error over largest value: outputs, gradients. Inputs are rounded before the reference sees them.
TOLERANCES = {
    torch.float64: (1e-12, 1e-11),
    torch.float32: (1e-5, 1e-4),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (2e-3, 4e-3),
}
ODD = {
    "usual": {},
    "one level": {"shapes": ((7, 11),)},
    "one point": {"points": 1},
    "one everything": {"shapes": ((1, 1),), "points": 1, "queries": 1, "heads": 1, "channels": 1, "batch": 1},
    "more samples than lanes": {"points": 7, "shapes": ((9, 14), (5, 7), (3, 4))},
    "seven levels": {"shapes": ((8, 8), (7, 5), (4, 6), (3, 3), (2, 2), (1, 3), (1, 1)), "points": 3},
    "width 16": {"channels": 16},
    "width 64": {"channels": 64},
    "odd width": {"channels": 21},
    "width 3": {"channels": 3},
    "wide": {"channels": 130, "heads": 1},
    "large batch": {"batch": 70, "queries": 3, "heads": 2, "channels": 8},
    "boxes": {"columns": 4},
    "mask": {"masked": True},
    "boxes and mask": {"columns": 4, "masked": True, "heads": 3},
}


def gradients(function, inputs, seed=1):
    """Output and gradients of the inputs for a random gradient of the output."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*inputs)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.backward(weight.to(output))
    return [output.detach(), *(x.grad for x in inputs)]


def assert_close(results, expected, dtype):
    for i, (result, right) in enumerate(zip(results, expected, strict=True)):
        assert result.shape == right.shape
        scale = right.abs().max().clamp(min=1e-6)
        error = (result.cpu().double() - right).abs().max() / scale
        assert error <= TOLERANCES[dtype][i > 0], f"result {i}: error {error:.2e}"


def away_from_seams(case: Case) -> Case:
    """Moves samples off pixel borders, where a rounding error changes the gradient by a jump."""
    pixels = case.offsets + case.reference_points[:, :, None, :, None, :2] * torch.tensor(
        [(w, h) for h, w in case.shapes], dtype=torch.float64
    ).unsqueeze(1)
    fraction = (pixels - 0.5).frac().abs()
    safe = (fraction > 0.02) & (fraction < 0.98)
    return Case(
        case.shapes,
        case.value,
        torch.where(safe, case.offsets, case.offsets + 0.1),
        case.logits,
        case.reference_points,
        case.mask,
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", ODD)
def test_fused_form_matches_reference(device, name, dtype):
    case = make_case(**ODD[name])
    if case.reference_points.shape[-1] == 2:
        case = away_from_seams(case)
    case = case.to(dtype, device)
    exact = case.to(torch.float64)

    def ours(value, offsets, logits):
        return ms_deform_attn_fused(value, case.shapes, offsets, logits, case.reference_points, case.mask)

    def right(value, offsets, logits):
        return ms_deform_attn_fused_reference(
            value, case.shapes, offsets, logits, exact.reference_points, exact.mask
        )

    results = gradients(ours, [case.value, case.offsets, case.logits])
    expected = gradients(right, [exact.value, exact.offsets, exact.logits])
    if dtype == torch.float64 or case.reference_points.shape[-1] == 2:
        assert_close(results, expected, dtype)
    else:
        assert_close(results[:2], expected[:2], dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", [name for name in ODD if "boxes" not in name and "mask" not in name])
def test_plain_form_matches_reference(device, name, dtype):
    case = away_from_seams(make_case(**ODD[name])).to(dtype, device)
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    exact = case.to(torch.float64)
    locations, weights = exact.locations.to(device, precise), exact.weights.to(device, precise)
    results = gradients(
        lambda value, at, by: ms_deform_attn(value, case.shapes, at, by), [case.value, locations, weights]
    )
    expected = gradients(
        lambda value, at, by: ms_deform_attn_reference(value, case.shapes, at, by),
        [exact.value, locations.cpu().double(), weights.cpu().double()],
    )
    assert_close(results, expected, dtype)
