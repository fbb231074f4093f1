"""The CUDA kernels on a GPU: types, forms, odd shapes, against float64, small enough for a sanitizer.

The tests beside this one run on a GPU too where there is one; here is what only a GPU can show.
"""

import pytest
import torch

from models.dino.ops import extension, ms_deform_attn, ms_deform_attn_fused
from models.dino.ops.reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

from .cases import make_case
from .test_kernels import TOLERANCES, assert_close, away_from_seams, gradients

pytestmark = pytest.mark.gpu
CASES = {
    "encoder": {"shapes": ((8, 9), (4, 5)), "queries": 92},
    "masked": {"masked": True, "queries": 9},
    "odd width": {"channels": 21, "queries": 9},
    "more samples than a chunk": {"points": 7, "queries": 9},
}


@pytest.fixture(autouse=True)
def kernels():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert extension.compiled("cuda"), extension.status("cuda").reason


@pytest.fixture
def poisoned():
    """Memory that the kernels will be handed holds NaN: what they leave unwritten shows.

    PyTorch takes tensors of up to 1 MiB, as all of these are, from blocks of their own: many small ones.
    """
    torch.cuda.empty_cache()
    held = [torch.full((2**17,), float("nan"), device="cuda") for _ in range(64)]
    del held
    torch.cuda.synchronize()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_against_float64_in_poisoned_memory(poisoned, name, dtype, fused):
    case = away_from_seams(make_case(**CASES[name])).to(dtype, "cuda")
    exact = case.to(torch.float64)
    if fused:
        results = gradients(
            lambda v, o, a: ms_deform_attn_fused(v, case.shapes, o, a, case.reference_points, case.mask),
            [case.value, case.offsets, case.logits],
        )
        expected = gradients(
            lambda v, o, a: ms_deform_attn_fused_reference(
                v, case.shapes, o, a, exact.reference_points, exact.mask
            ),
            [exact.value, exact.offsets, exact.logits],
        )
    else:
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        locations, weights = exact.locations.to(precise), exact.weights.to(precise)
        results = gradients(
            lambda v, at, by: ms_deform_attn(v, case.shapes, at, by), [case.value, locations, weights]
        )
        expected = gradients(
            lambda v, at, by: ms_deform_attn_reference(v, case.shapes, at, by),
            [exact.value, locations.double(), weights.double()],
        )
    assert_close(results, [x.cpu() for x in expected], dtype)


def test_nothing_waits_for_the_gpu():
    case = make_case(masked=True).to(torch.bfloat16, "cuda")
    inputs = [x.requires_grad_() for x in (case.value, case.offsets, case.logits, case.reference_points)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = ms_deform_attn_fused(inputs[0], case.shapes, *inputs[1:], case.mask)
        output.backward(torch.ones_like(output))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(x.grad.isfinite().all() for x in inputs)


def test_runs_on_the_current_stream_and_in_a_graph():
    case = make_case().to(torch.float32, "cuda")
    arguments = (case.value, case.shapes, case.offsets, case.logits, case.reference_points)
    expected = ms_deform_attn_fused(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = ms_deform_attn_fused(*arguments)
    output.zero_()
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(output, expected)


def test_a_second_gpu_is_used_where_the_tensors_are():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    case = make_case().to(torch.float32, "cuda:1")
    output = ms_deform_attn_fused(case.value, case.shapes, case.offsets, case.logits, case.reference_points)
    right = ms_deform_attn_fused_reference(
        case.value, case.shapes, case.offsets, case.logits, case.reference_points
    )
    torch.testing.assert_close(output, right, atol=1e-5, rtol=1e-4)


def test_more_than_32_bits_of_numbers():
    """2^31 numbers in one image: 4 GiB of bfloat16, and as much again for what is around it."""
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("less than 20 GiB free")
    height, width, heads, channels = 2100, 4096, 8, 32
    value = torch.zeros(1, height * width, heads, channels, dtype=torch.bfloat16, device="cuda")
    value[:, -1] = 3.0
    locations = torch.tensor([(width - 0.5) / width, (height - 0.5) / height], device="cuda")
    locations = locations.expand(1, 5, heads, 1, 1, 2)
    weights = torch.ones(1, 5, heads, 1, 1, device="cuda")
    output = ms_deform_attn(value, [(height, width)], locations, weights)
    torch.testing.assert_close(output, torch.full_like(output, 3.0), rtol=2e-2, atol=0)
