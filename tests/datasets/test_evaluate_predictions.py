"""tools/evaluate_predictions.py as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.lvis_metrics import METRICS
from tests.datasets.test_lvis_equality import random_case

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate_predictions.py"


def run(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def files(tmp_path):
    content, results = random_case(3)
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "p.json").write_text(json.dumps(results))
    return "--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json"


def test_prints_and_writes_the_13_metrics(files, tmp_path):
    done = run(*files, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert tuple(written) == METRICS
    printed = [line.split() for line in done.stdout.splitlines()]
    assert {name: float(value) for name, value in printed[-13:]} == written


def test_the_reference_agrees(files, tmp_path):
    for option, name in ((), "ours"), (("--reference",), "theirs"):
        assert run(*files, *option, "--json", tmp_path / name).returncode == 0
    ours, theirs = (json.loads((tmp_path / n).read_text()) for n in ("ours", "theirs"))
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_mistake_is_one_line_and_status_2(files, tmp_path):
    files[3].write_text('[{"image_id": 1')
    done = run(*files)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "p.json: ends early" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
