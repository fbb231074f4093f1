"""The benchmark of the evaluator runs at a small size, compares results, and reports in the common form."""

import json

import pytest

from benchmarks import lvis_eval


@pytest.mark.ci
def test_a_small_run(tmp_path):
    assert lvis_eval.main(["--quick", "--json", str(tmp_path / "out.json")]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    found = {(row["case"], row["baseline"], row["metric"]) for row in content["rows"]}
    figures = (("", "time"), ("/cpu", "time"), ("", "memory"))
    assert {(f"evaluate/30x300{suffix}", "lvis", metric) for suffix, metric in figures} <= found
    assert {row["baseline"] for row in content["rows"]} - {"none"} <= set(lvis_eval.BASELINES)
    assert {case for case, _, _ in found} >= {"evaluate/60x300", "evaluate/60x300/cpu"}
    assert all(row["ratio"] is None for row in content["rows"] if row["baseline"] == "none")
    assert content["notes"]["predictions, evaluate/30x300"] == 9000
    assert "1" in content["notes"]["difference, evaluate/30x300, ours and lvis"]


@pytest.mark.ci
def test_a_baseline_with_other_metrics_stops_the_run(tmp_path, monkeypatch):
    files = lvis_eval.generate(tmp_path, 30)[:2]
    wrong = lvis_eval.BASELINES["lvis"]._replace(evaluate=metrics_that_are_wrong)
    monkeypatch.setitem(lvis_eval.BASELINES, "lvis", wrong)
    with pytest.raises(SystemExit, match="case: the metrics differ from those of lvis"):
        lvis_eval.compared("case", files, ["lvis"], 1, {})


def metrics_that_are_wrong():
    return {name: value + 1e-9 for name, value in lvis_eval.lvis().items()}
