"""scripts/gpu_check.sh where there is no GPU: its answer, and a walk through its steps."""

import json
import subprocess
import sys

import pytest
import torch

from models.dino.ops import compiler
from tools import gpu_check

TOOLS = ["memcheck", "racecheck", "synccheck"]


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no GPU here")


def test_steps_for_a_gpu_ask_for_cuda_and_stay_below_nine_minutes(tmp_path):
    steps = {step.name: step for step in gpu_check.steps("cuda", tmp_path, small=False)}
    assert list(steps) == ["build", "tests", "benchmark", "data", "training", *TOOLS]
    for name in ("benchmark", "training"):
        command = steps[name].command
        assert command[command.index("--device") + 1] == "cuda"
    assert steps["tests"].command[-2:] == ["gpu", "tests"]
    assert gpu_check.TOTAL < 9 * 60


@pytest.mark.ci
def test_sanitizer_beside_nvcc_runs_tests_that_exist(tmp_path, monkeypatch):
    sanitizer = tmp_path / "compute-sanitizer"
    sanitizer.touch(mode=0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(compiler, "find_nvcc", lambda: tmp_path / "nvcc")
    steps = {step.name: step for step in gpu_check.steps("cuda", tmp_path, small=False)}
    for tool in TOOLS:
        assert steps[tool].command[0] == str(sanitizer)
        assert steps[tool].command[4] == tool
        assert not steps[tool].skip_reason
    assert steps["synccheck"].command[5:] == steps["racecheck"].command[5:]
    counts = {}
    for tool in TOOLS[:2]:
        command = steps[tool].command
        listing = [*command[command.index(sys.executable) :], "--collect-only", "-v"]
        listed = subprocess.run(
            listing, cwd=gpu_check.ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert "in_a_graph" not in listed
        counts[tool] = listed.count("test_against_float64")
    assert counts["memcheck"] > counts["racecheck"] == 4


def test_a_failing_and_a_slow_step_are_reported(tmp_path):
    def run(code: str, limit: float = 60, left: float = 60) -> gpu_check.Outcome:
        step = gpu_check.Step("try", [sys.executable, "-c", code], limit)
        return gpu_check.run_step(step, left, tmp_path / "log")

    assert run("print('fine')").state == "passed"
    failed = run("raise SystemExit('broken')")
    assert (failed.state, failed.detail) == ("failed", "broken")
    slow = run("import time; time.sleep(30)", limit=0.3)
    assert slow.state == "failed"
    assert slow.detail.startswith("stopped after")
    assert run("print('fine')", left=1).state == "skipped"


@pytest.mark.parametrize("measured", [True, False])
def test_report_has_steps_and_rows(tmp_path, measured):
    benchmark = tmp_path / "benchmark.json"
    row = {
        "case": "a/b",
        "baseline": "plain",
        "metric": "time",
        "candidate": 1.0,
        "reference": 3.0,
        "ratio": 3.0,
    }
    if measured:
        benchmark.write_text(json.dumps({"rows": [row], "notes": {"errors": [1e-6]}}))
    outcomes = [gpu_check.Outcome("build", "passed", 1.0, "a | b")]
    path = gpu_check.write_report(tmp_path / "results", "cpu", outcomes, benchmark)
    content = json.loads(path.read_text())
    assert content["rows"] == ([row] if measured else [])
    assert content["steps"][0]["name"] == "build"
    text = path.with_suffix(".md").read_text()
    assert "| build | passed | 1.0 | `a / b` |" in text
    assert ("| a/b | plain | time |" in text) == measured
