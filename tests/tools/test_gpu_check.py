"""scripts/gpu_check.sh where there is no GPU: its answer, and a walk through its steps."""

import json
import os
import subprocess
import sys

import pytest
import torch

from models.dino.ops import compiler
from tools import gpu_check

TOOLS = ["memcheck", "racecheck", "synccheck"]


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no GPU here")


def test_steps_for_a_gpu_ask_for_cuda_and_stay_below_nine_minutes(tmp_path):
    steps = {step.name: step for step in gpu_check.steps("cuda", tmp_path, small=False)}
    assert list(steps) == ["build", "tests", *gpu_check.BENCHMARKS, "data", "training", *TOOLS]
    for name in (*gpu_check.BENCHMARKS, "training"):
        command = steps[name].command
        assert command[command.index("--device") + 1] == "cuda"
    assert steps["tests"].command[-2:] == ["gpu", "tests"]
    assert gpu_check.TOTAL < 9 * 60


@pytest.mark.ci
def test_benchmarks_for_a_gpu_get_flags_that_they_take(tmp_path):
    steps = gpu_check.benchmark_steps("cuda", tmp_path, small=False, wheels=None, previous=tmp_path)
    for step in steps:
        hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        command = [*step.command[:1], str(gpu_check.ROOT / step.command[1]), *step.command[2:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=hidden)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert done.returncode and "there is no GPU" in line, step.name


@pytest.mark.ci
def test_dry_run_walks_through_all_steps(tmp_path):
    command = [sys.executable, "tools/gpu_check.py", "--dry_run", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=gpu_check.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    assert {s["name"] for s in content["steps"] if s["state"] == "passed"} == {
        *("build", "tests", "data", "training"),
        *gpu_check.BENCHMARKS,
    }
    assert {"step/480x640/cpu/fp32", "inference/480x640/cpu/fp32"} < {row["case"] for row in content["rows"]}
    # What a CPU cannot do is said, with the reason.
    assert content["left_out"]["ms_deform_attn beside plain"] == "runs on GPUs only"
    assert set(TOOLS) < set(content["left_out"])


def test_only_runs_some_and_says_what_it_left_out(tmp_path, monkeypatch, capsys):
    ran = []

    def run(step, left, log):
        state = gpu_check.SKIPPED if step.skip_reason else gpu_check.PASSED
        ran.append((step.name, state))
        return gpu_check.Outcome(step.name, state, 0.0, step.skip_reason or "done")

    monkeypatch.setattr(gpu_check, "run_step", run)
    wheels = ["--wheels", str(tmp_path)]
    assert gpu_check.main(["--dry_run", "--output", str(tmp_path), "--only", "tests", *wheels]) == 0
    assert [name for name, state in ran if state == "passed"] == ["wheels", "tests"]
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["left_out"]["training"] == "not asked for (--only)"
    with pytest.raises(SystemExit):
        gpu_check.main(["--dry_run", "--only", "test"])
    assert "--only test: the steps are build, tests" in capsys.readouterr().err


def test_wheels_are_what_the_benchmarks_import(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/there")
    (tmp_path / "b-1-py3-none-any.whl").touch()
    steps = {s.name: s for s in gpu_check.steps("cuda", tmp_path, small=False, wheels=tmp_path)}
    command = steps["wheels"].command
    assert command[-1] == str(tmp_path / "b-1-py3-none-any.whl")
    site = command[command.index("--target") + 1]
    for name in gpu_check.BENCHMARKS:
        assert steps[name].environment["PYTHONPATH"].split(os.pathsep) == [site, "/there"]
    assert "PYTHONPATH" not in steps["tests"].environment


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
def test_report_has_steps_rows_and_what_was_left_out(tmp_path, measured):
    row = {"case": "a/b", "baseline": "plain", "metric": "time"}
    row |= {"candidate": 1.0, "reference": 3.0, "ratio": 3.0}
    outcomes = [gpu_check.Outcome("build", "passed", 1.0, "a | b")]
    outcomes += [gpu_check.Outcome("ms_deform_attn", "failed", 120.0, "stopped after 120 s")]
    outcomes += [gpu_check.Outcome("memcheck", "skipped", 0.0, "no time left")]
    if measured:
        notes = {"errors": [1e-6], "left out": {"deformops": "not installed"}}
        (tmp_path / "ms_deform_attn.json").write_text(json.dumps({"rows": [row], "notes": notes}))
    path = gpu_check.write_report(tmp_path / "results", "cpu", outcomes, tmp_path)
    content = json.loads(path.read_text())
    assert content["rows"] == ([row] if measured else [])
    assert content["steps"][0]["name"] == "build"
    missing = {"ms_deform_attn beside deformops": "not installed"}
    if not measured:
        missing = {"rows of ms_deform_attn": "stopped after 120 s"}
    assert content["left_out"] == {"memcheck": "no time left"} | missing
    text = path.with_suffix(".md").read_text()
    assert "| build | passed | 1.0 | `a / b` |" in text
    assert "- memcheck: no time left" in text
    assert ("| a/b | plain | time |" in text) == measured
