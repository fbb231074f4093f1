"""The benchmark of the evaluator runs at a small size, compares results, and reports in the common form."""

import json

from benchmarks import lvis_eval


def test_a_small_run(tmp_path):
    assert lvis_eval.main(["--quick", "--json", str(tmp_path / "out.json")]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    found = {(row["case"], row["baseline"], row["metric"]) for row in content["rows"]}
    assert {("evaluate/30x300", "lvis", "time"), ("evaluate/30x300", "lvis", "memory")} <= found
    assert {("evaluate/60x300", "none", "time"), ("evaluate/60x300", "none", "memory")} <= found
    assert all(row["ratio"] is None for row in content["rows"] if row["baseline"] == "none")
    assert content["notes"]["predictions, evaluate/30x300"] == 9000
    assert "1" in content["notes"]["difference, evaluate/30x300, ours and lvis"]
