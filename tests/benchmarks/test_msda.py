"""The deformable attention benchmark: fair inputs, opponents that compute the same, the agreed report."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.ms_deform_attn import OURS, Case, cases, errors, inputs_for, run
from benchmarks.msda import opponents
from benchmarks.msda.inputs import LOCAL, UNIFORM, WORKLOADS, Workload, make_inputs
from benchmarks.msda.opponents import grid_sample, ours
from tests.source_files import ROOT

SMALL = Workload(((6, 9), (3, 5)), dim=16, heads=2, points=2, queries=None)


def test_cases_have_the_agreed_names():
    names = {case.name for case in cases()}
    for workload in ("encoder", "decoder"):
        for where in (LOCAL, UNIFORM):
            for what in ("forward", "forward+backward"):
                assert {f"{workload}/{where}/{what}{s}" for s in ("", "/fused", "/bf16/fused")} <= names
    assert len(names) == len(list(cases()))


@pytest.mark.parametrize("where", [LOCAL, UNIFORM])
@pytest.mark.parametrize("queries", [None, 30])
def test_both_forms_sample_the_same_places_off_the_seams(where, queries):
    workload = Workload(SMALL.shapes, SMALL.dim, SMALL.heads, SMALL.points, queries)
    plain = make_inputs(workload, where, fused=False)
    fused = make_inputs(workload, where, fused=True)
    torch.testing.assert_close(fused.plain()[0], plain.positions)
    sizes = torch.tensor(workload.shapes).flip(-1)[:, None]
    pixels = plain.positions * sizes - 0.5
    assert (pixels - pixels.round()).abs().min() > 1e-3
    inside = ((plain.positions > 0) & (plain.positions < 1)).float().mean()
    assert inside > (0.95 if where == UNIFORM else 0.5)


@pytest.mark.parametrize("fused", [False, True])
def test_opponents_compute_the_same(fused):
    inputs = make_inputs(SMALL, LOCAL, fused=fused, batch=2).trainable()
    for result, right in zip(run(ours, inputs, True), run(grid_sample, inputs, True), strict=True):
        torch.testing.assert_close(result, right, atol=1e-5, rtol=1e-4)


def test_errors_are_those_of_the_candidate():
    case = Case("mini_decoder", LOCAL, True, False, False)
    found = errors(case, {OURS: lambda inputs: 1.5 * ours(inputs), "grid_sample": grid_sample}, "cpu")
    assert found[OURS][0] == pytest.approx(0.5, abs=0.01)
    assert max(found["grid_sample"]) < 1e-5
    assert WORKLOADS["mini_decoder"].queries == 100


def test_an_opponent_whose_kernels_do_not_run_is_left_out_with_its_reason(monkeypatch):
    def broken(inputs):
        if inputs.value.dtype == torch.bfloat16:
            raise RuntimeError("no kernel image\nfor this device")
        return grid_sample(inputs)

    makers = {"grid_sample": lambda device: grid_sample, "deformops": lambda device: broken}
    monkeypatch.setattr(opponents, "_MAKERS", makers)
    present, absent = opponents.opponents("cpu")
    assert present == {"grid_sample": grid_sample}
    assert absent == {"deformops": "does not run in torch.bfloat16: RuntimeError: no kernel image"}


def test_only_opponents_that_take_16_bit_get_it():
    inputs = make_inputs(SMALL, LOCAL, fused=True, dtype=torch.bfloat16)
    given = {name: inputs_for(name, inputs).value.dtype for name in (OURS, "deformops", "plain")}
    assert given == {OURS: torch.bfloat16, "deformops": torch.bfloat16, "plain": torch.float32}


def test_report(tmp_path):
    out = tmp_path / "report.json"
    command = [sys.executable, "benchmarks/ms_deform_attn.py", "--device", "cpu", "--json", str(out)]
    command += ["--only", "mini_decoder/local/forward", "--repeats", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    content = json.loads(out.read_text())
    assert {row["case"] for row in content["rows"]} == {"mini_decoder/local/forward"}
    assert "grid_sample" in {row["baseline"] for row in content["rows"]}
    assert "plain: left out, runs on GPUs only" in result.stdout
    assert content["notes"]["left out"]["plain"] == "runs on GPUs only"
    assert content["notes"]["batch"] == 1
