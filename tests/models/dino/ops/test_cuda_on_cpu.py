"""The CUDA kernels, compiled for the CPU, against the reference in float64."""

import pytest
import torch

from benchmarks.ms_deform_attn import run
from benchmarks.msda import plain
from benchmarks.msda.inputs import LOCAL, Workload, make_inputs
from benchmarks.msda.opponents import grid_sample
from models.dino.ops import compiler
from models.dino.ops.reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

from . import cuda_on_cpu
from .cases import make_case
from .test_kernels import ODD, TOLERANCES, assert_close, away_from_seams

ENCODER = ((13, 37), (11, 19), (6, 10), (3, 5))
CASES = {
    **{name: {**arguments, "queries": 11} for name, arguments in ODD.items() if "everything" not in name},
    "one everything": ODD["one everything"],
    "large batch": {"batch": 9, "queries": 3, "heads": 2, "channels": 8},
    # One query per token, so tiles are squares; levels too large for one window of bins.
    "encoder": {"shapes": ENCODER, "queries": 765, "batch": 1, "heads": 2},
    "level without pixels": {"shapes": ((4, 5), (0, 3), (2, 0), (2, 2)), "queries": 9},
    "long level": {"shapes": ((8, 120), (120, 8)), "queries": 70, "batch": 1, "heads": 1, "channels": 8},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    try:
        compiler.find_host_compiler()
    except compiler.BuildError as error:
        pytest.skip(str(error))
    return cuda_on_cpu.build(tmp_path_factory.mktemp("cuda_on_cpu"))


def run_and_compare(library, arguments, dtype, plain, deterministic=False):
    case = make_case(**arguments)
    if case.reference_points.shape[-1] == 2:
        case = away_from_seams(case)
    case = case.to(dtype)
    exact = case.to(torch.float64)
    working = torch.float64 if dtype == torch.float64 else torch.float32
    if plain:
        positions, attention = exact.locations.to(working), exact.weights.to(working)
    else:
        positions, attention = case.offsets, case.logits
    inputs = [x.double().requires_grad_() for x in (case.value, positions, attention)]
    if plain:
        right = ms_deform_attn_reference(inputs[0], case.shapes, inputs[1], inputs[2])
    else:
        right = ms_deform_attn_fused_reference(
            inputs[0], case.shapes, inputs[1], inputs[2], exact.reference_points, case.mask
        )
    gradient = torch.randn(right.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    right.backward(gradient.double())
    results = cuda_on_cpu.run(
        library,
        case.shapes,
        case.value,
        positions,
        attention,
        gradient,
        None if plain else case.reference_points,
        None if plain else case.mask,
        deterministic,
    )
    expected = [right.detach(), *(x.grad for x in inputs)]
    assert_close([results.output, results.value, results.positions, results.attention], expected, dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fused_kernels(library, name, dtype):
    run_and_compare(library, CASES[name], dtype, plain=False)


@pytest.mark.parametrize("name", ["usual", "more samples than lanes", "odd width"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_plain_kernels(library, name, dtype):
    run_and_compare(library, CASES[name], dtype, plain=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["usual", "boxes and mask"])
def test_other_types(library, name, dtype):
    run_and_compare(library, CASES[name], dtype, plain=False)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("plain", [False, True])
def test_deterministic_kernel(library, dtype, plain):
    run_and_compare(library, CASES["usual"], dtype, plain, deterministic=True)


@pytest.mark.parametrize("name", ["usual", "boxes and mask", "seven levels"])
def test_indices_of_64_bits(library, name):
    library.set_numbers_for_64_bits(0)
    try:
        run_and_compare(library, CASES[name], torch.float32, plain=False)
        run_and_compare(library, CASES[name], torch.bfloat16, plain=False)
    finally:
        library.set_numbers_for_64_bits(2**31)


@pytest.mark.parametrize("columns", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_pixels(library, columns, dtype):
    """Those of offsets before the boxes' scale, in float32: reference points take theirs from them."""
    case = make_case(queries=7, columns=columns).to(dtype)
    gradient = torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(1)).to(dtype)
    arguments = (case.value, case.offsets, case.logits, gradient, case.reference_points)
    pixels = cuda_on_cpu.run(library, case.shapes, *arguments, pixel_gradients=True).positions
    scaled = cuda_on_cpu.run(library, case.shapes, *arguments).positions
    assert pixels.dtype == torch.float32
    if columns == 4:
        sizes = torch.tensor(case.shapes).flip(-1)[:, None]
        pixels = pixels * case.reference_points[:, :, None, :, None, 2:] * sizes * (0.5 / 4)
    assert_close([scaled], [pixels.double()], dtype)


def test_samples_without_a_place_count_as_zero(library):
    case = make_case(queries=7).to(torch.float32)
    locations = case.locations.contiguous()
    locations[:, ::3, :, 1] = float("nan")
    locations[:, 1::3, :, :, 2, 0] = float("inf")
    locations[:, 2::3, :, 0, :, 1] = -1e30
    weights = case.weights.contiguous()
    inputs = [x.double().requires_grad_() for x in (case.value, locations, weights)]
    right = ms_deform_attn_reference(inputs[0], case.shapes, inputs[1], inputs[2])
    gradient = torch.ones(right.shape)
    right.backward(gradient.double())
    results = cuda_on_cpu.run(library, case.shapes, case.value, locations, weights, gradient)
    assert_close([results.output, results.value], [right.detach(), inputs[0].grad], torch.float32)
    assert results.positions.isfinite().all()
    assert (results.positions[:, ::3, :, 1] == 0).all()


def test_masked_values_are_never_touched(library):
    case = make_case(queries=9, masked=True).to(torch.float32)
    poisoned = case.value.clone()
    poisoned[case.mask] = float("nan")
    gradient = torch.ones(2, 9, 128)
    arguments = (case.offsets, case.logits, gradient, case.reference_points, case.mask)
    clean = cuda_on_cpu.run(library, case.shapes, case.value, *arguments)
    dirty = cuda_on_cpu.run(library, case.shapes, poisoned, *arguments)
    torch.testing.assert_close(dirty.output, clean.output)
    torch.testing.assert_close(dirty.attention, clean.attention)
    assert (dirty.value[case.mask] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_infinite_gradient_does_not_reach_masked_values(library, dtype):
    case = make_case(queries=9, masked=True).to(dtype)
    gradient = torch.full((2, 9, 128), float("inf"), dtype=dtype)
    arguments = (case.value, case.offsets, case.logits, gradient, case.reference_points, case.mask)
    results = cuda_on_cpu.run(library, case.shapes, *arguments)
    assert (results.value[case.mask] == 0).all()
    assert not results.value.isfinite().all()


def value_gradient(library, case, gradient, logits):
    """Of the fused form, in the deterministic mode."""
    arguments = (case.value, case.offsets, logits, gradient, case.reference_points)
    return cuda_on_cpu.run(library, case.shapes, *arguments, deterministic=True).value


def test_gradient_that_is_not_a_number_shows_in_the_deterministic_mode(library):
    case = make_case(queries=3).to(torch.float32)
    gradient = torch.ones(2, 3, 128)
    gradient[0, 1, 5] = float("nan")
    assert value_gradient(library, case, gradient, case.logits).isnan().all()


@pytest.mark.parametrize("largest", [1.0, 0.0])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_softmax_that_is_not_a_number_shows_in_the_deterministic_mode(library, broken, largest):
    """One NaN, one +inf, a row of -inf alone; also where the gradient is 0."""
    case = make_case(queries=3).to(torch.float32)
    logits = case.logits.clone()
    logits[0, 1, 0, slice(None) if broken == float("-inf") else 2] = broken
    assert value_gradient(library, case, torch.full((2, 3, 128), largest), logits).isnan().all()


def test_logits_of_minus_infinity_are_weights_of_zero_in_the_deterministic_mode(library):
    case = make_case(queries=3).to(torch.float32)
    hidden, low = case.logits.clone(), case.logits.clone()
    hidden[:, :, :, ::2], low[:, :, :, ::2] = float("-inf"), -1e4
    gradient = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(1))
    result = value_gradient(library, case, gradient, hidden)
    assert (result != 0).any()
    assert torch.equal(result, value_gradient(library, case, gradient, low))


def test_tiny_gradients_of_float64_in_the_deterministic_mode(library):
    case = make_case(queries=3).to(torch.float64)
    gradient = torch.randn(2, 3, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    result = value_gradient(library, case, gradient * 2.0**-1000, case.logits)
    expected = value_gradient(library, case, gradient, case.logits)
    torch.testing.assert_close(result * 2.0**1000, expected, atol=2.0**-20, rtol=0)


def test_a_refused_launch_is_reported_once(library):
    case = make_case(queries=3).to(torch.float32)
    library.refuse_next_launch()
    with pytest.raises(AssertionError, match="forward' returned 9"):
        value_gradient(library, case, torch.ones(2, 3, 128), case.logits)
    assert library.take_last_error() == 0


def test_plain_kernel_of_the_benchmark_computes_the_same(library):
    workload = Workload(((6, 9), (3, 5)), dim=16, heads=2, points=2, queries=20)
    inputs = make_inputs(workload, LOCAL, fused=True, batch=2).trainable()
    attend = plain.attention(library, stream=lambda: 0)
    for result, right in zip(run(attend, inputs, True), run(grid_sample, inputs, True), strict=True):
        torch.testing.assert_close(result, right, atol=1e-5, rtol=1e-4)
