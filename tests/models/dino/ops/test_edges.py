"""Inputs that break kernels: nothing to do, far outside, not a number, odd memory, wrong arguments."""

import pytest
import torch

from models.dino.ops import ms_deform_attn, ms_deform_attn_fused
from models.dino.ops.reference import ms_deform_attn_reference

from .cases import make_case


def fused(case, **changes):
    arguments = {
        "value": case.value,
        "shapes": case.shapes,
        "offsets": case.offsets,
        "logits": case.logits,
        "reference_points": case.reference_points,
        "padding_mask": case.mask,
    }
    return ms_deform_attn_fused(**{**arguments, **changes})


@pytest.mark.parametrize("empty", ["queries", "batch"])
def test_nothing_to_do(device, empty):
    case = make_case(**{empty: 0}).to(torch.float32, device)
    value = case.value.requires_grad_()
    output = fused(case, value=value)
    output.sum().backward()
    assert output.shape == (case.offsets.shape[0], case.offsets.shape[1], 128)
    assert value.grad.shape == value.shape
    assert value.grad.abs().sum() == 0


def test_level_without_pixels(device):
    case = make_case(shapes=((4, 5), (0, 3), (2, 2))).to(torch.float32, device)
    output = ms_deform_attn(case.value, case.shapes, case.locations, case.weights)
    expected = ms_deform_attn_reference(case.value, case.shapes, case.locations, case.weights)
    torch.testing.assert_close(output, expected)


def test_borders_and_beyond(device):
    shapes = [(4, 5)]
    at = [-1e30, -5, -0.101, -0.1, -0.05, 0.0, 0.1, 0.5, 0.9, 1.0, 1.05, 1.1, 1.2, 7, 1e30]
    x, y = torch.meshgrid(torch.tensor(at), torch.tensor(at), indexing="xy")
    locations = torch.stack([x, y], -1).view(1, -1, 1, 1, 1, 2).to(device)
    weights = torch.ones(locations.shape[:-1], device=device)
    value = torch.randn(1, 20, 1, 8, device=device, generator=torch.Generator(device).manual_seed(0))
    output = ms_deform_attn(value, shapes, locations, weights)
    expected = ms_deform_attn_reference(value.double(), shapes, locations.double(), weights.double())
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    assert (output.view(len(at), len(at), 8)[:, [0, 1, -2, -1]] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_samples_without_a_place_count_as_zero(device, bad):
    case = make_case().to(torch.float32, device)
    locations = case.locations.clone()
    locations[:, ::3, :, 1] = bad
    locations[:, 1::3, :, :, 2, 0] = bad
    value, locations = case.value.requires_grad_(), locations.requires_grad_()
    output = ms_deform_attn(value, case.shapes, locations, case.weights)
    output.sum().backward()
    expected = ms_deform_attn_reference(value, case.shapes, locations, case.weights)
    torch.testing.assert_close(output, expected)
    assert output.isfinite().all()
    assert value.grad.isfinite().all()
    assert (locations.grad[:, ::3, :, 1] == 0).all()


def test_masked_values_are_never_touched(device):
    case = make_case(masked=True).to(torch.float32, device)
    poisoned = case.value.clone()
    poisoned[case.mask] = float("nan")
    value = poisoned.requires_grad_()
    output = fused(case, value=value)
    output.sum().backward()
    torch.testing.assert_close(output, fused(case))
    assert (value.grad[case.mask] == 0).all()
    assert value.grad.isfinite().all()


def test_values_outside_the_window_do_not_leak(device):
    """A sample off the map must not read its neighbour in memory, not even times zero."""
    shapes = [(3, 4), (2, 2)]
    value = torch.full((1, 16, 2, 8), float("nan"), device=device)
    value[:, 12:] = 1.0
    locations = torch.full((1, 6, 2, 2, 2, 2), 0.5, device=device)
    locations[:, :, :, 0] = -0.5
    weights = torch.full((1, 6, 2, 2, 2), 0.25, device=device)
    output = ms_deform_attn(value, shapes, locations, weights)
    torch.testing.assert_close(output, torch.full_like(output, 0.5))


def test_inputs_need_not_be_contiguous(device):
    case = make_case(masked=True).to(torch.float32, device)
    expected = fused(case)

    def scattered(x):
        room = torch.empty((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype, device=x.device)
        room[..., ::2] = x
        return room[..., ::2]

    changes = {
        "value": case.value.transpose(1, 2).contiguous().transpose(1, 2),
        "offsets": scattered(case.offsets),
        "logits": scattered(case.logits),
        "reference_points": case.reference_points.flip(1).contiguous().flip(1),
        "padding_mask": scattered(case.mask),
    }
    torch.testing.assert_close(fused(case, **changes), expected)
    value = changes["value"].detach().requires_grad_()
    fused(case, value=value).transpose(1, 2).square().sum().backward()
    right = case.value.detach().requires_grad_()
    fused(case, value=right).square().sum().backward()
    torch.testing.assert_close(value.grad, right.grad)


def test_unaligned_memory(device):
    case = make_case(channels=16).to(torch.bfloat16, device)
    room = torch.empty(case.value.numel() + 1, dtype=torch.bfloat16, device=device)
    value = room[1:].view(case.value.shape).copy_(case.value)
    torch.testing.assert_close(fused(case, value=value), fused(case))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"value": torch.zeros(2, 3)}, ValueError, "value must be"),
        ({"value": torch.zeros(2, 209, 4, 32, dtype=torch.int32)}, TypeError, "value must be float32"),
        ({"shapes": [(9, 14)]}, ValueError, "shapes hold 126 pixels"),
        ({"shapes": []}, ValueError, "shapes must be a non-empty list"),
        ({"shapes": torch.tensor([[9, 14]])}, TypeError, "shapes must hold Python ints"),
        ({"offsets": torch.zeros(2, 37, 4, 4, 4)}, ValueError, "offsets must be"),
        ({"offsets": torch.zeros(2, 37, 5, 4, 4, 2)}, ValueError, "offsets must be"),
        ({"logits": torch.zeros(2, 37, 4, 15)}, ValueError, "logits must be"),
        ({"logits": torch.zeros(2, 37, 4, 16, dtype=torch.int64)}, TypeError, "logits must be floating"),
        ({"reference_points": torch.zeros(2, 37, 4, 3)}, ValueError, "reference_points must be"),
        (
            {"reference_points": torch.zeros(2, 37, 4, 2).bfloat16()},
            TypeError,
            "reference_points must be float32",
        ),
        ({"padding_mask": torch.zeros(2, 209)}, TypeError, "padding_mask must be bool"),
        ({"padding_mask": torch.zeros(2, 5, dtype=torch.bool)}, ValueError, "padding_mask must be"),
        ({"logits": torch.zeros(2, 37, 4, 16, device="meta")}, ValueError, "logits is on meta"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    case = make_case(shapes=((9, 14), (5, 7), (6, 6), (3, 4))).to(torch.float32)
    with pytest.raises(error, match=message) as caught:
        fused(case, **change)
    assert "\n" not in str(caught.value)


def test_locations_in_16_bit_are_refused():
    case = make_case().to(torch.float32)
    with pytest.raises(TypeError, match="locations must be float32 or float64"):
        ms_deform_attn(case.value, case.shapes, case.locations.bfloat16(), case.weights)


def test_operator_refuses_what_would_read_wild(device):
    case = make_case().to(torch.float32, device)
    shapes = [size for shape in case.shapes for size in shape]
    with pytest.raises(ValueError, match="weights must be"):
        torch.ops.richsem.ms_deform_attn(case.value, shapes, case.locations, case.weights[:, :5])
    with pytest.raises(TypeError, match="locations must be"):
        torch.ops.richsem.ms_deform_attn(case.value, shapes, case.locations.double(), case.weights)
    with pytest.raises(ValueError, match="shapes hold"):
        torch.ops.richsem.ms_deform_attn(case.value, [5, 5], case.locations, case.weights)
