import json

import pytest

from benchmarks.report import main


@pytest.mark.ci
def test_the_benchmark_runs_and_checks_ap(tmp_path):
    out = tmp_path / "out.json"
    assert main(["--quick", "--only", "*one_run*", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {r["metric"] for r in rows} == {"time", "memory"} and all(r["candidate"] > 0 for r in rows)
