"""The measuring itself: turns, medians, memory of a process of its own, the report's form."""

import json
import time

import numpy as np
import pytest

from benchmarks.protocol import (
    MEMORY,
    TIME,
    Deadline,
    Row,
    in_own_process,
    interleaved,
    report,
    table,
    wanted,
)


def hold(megabytes: int) -> int:
    """Touches so much memory and lets it go."""
    return int(np.ones(megabytes * 2**20, np.uint8).sum() > 0)


def fail() -> None:
    raise ValueError("as asked")


def test_runs_take_turns_and_warm_up_is_not_counted():
    order = []
    medians = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), time.sleep(0.01))},
        repeats=2,
        warmup=1,
    )
    assert order == ["a", "b"] * 3
    assert medians["b"] >= 0.01 > medians["a"]


def test_memory_is_that_of_the_work_alone():
    np.ones(200 * 2**20, np.uint8).sum()
    measured = in_own_process(hold, 64, prepare=None)
    assert measured.value == 1
    assert 60 * 2**20 < measured.peak_bytes < 100 * 2**20


def test_an_error_of_the_other_process_is_ours():
    with pytest.raises(ValueError, match="as asked"):
        in_own_process(fail)


def test_cases_after_the_deadline_are_left_out_by_name():
    over, ample = Deadline(0), Deadline(60)
    assert not over.allows("a/b") and over.left_out == {"a/b": "no time left"}
    assert ample.allows("a/b") and not ample.left_out


def test_ratio_is_reference_over_candidate():
    assert Row("c", "b", TIME, 2.0, 6.0).ratio == 3.0
    assert Row("c", "none", TIME, 2.0, None).ratio is None


def test_report_writes_what_it_prints(tmp_path, capsys):
    rows = [Row("x/forward", "plain", TIME, 0.5, 1.0), Row("x/forward", "none", MEMORY, 2**20, None)]
    report(rows, json_path=tmp_path / "out" / "r.json", packages=["numpy", "no-such-package"])
    content = json.loads((tmp_path / "out" / "r.json").read_text())
    assert content["rows"][0] == {
        "case": "x/forward",
        "baseline": "plain",
        "metric": "time",
        "candidate": 0.5,
        "reference": 1.0,
        "ratio": 2.0,
    }
    assert content["rows"][1]["ratio"] is None
    assert content["versions"]["numpy"] == np.__version__
    assert content["versions"]["no-such-package"] == "absent"
    assert table(rows) in capsys.readouterr().out


def test_only():
    assert wanted("encoder/local/forward", []) and wanted("encoder/local/forward", ["encoder/*"])
    assert not wanted("encoder/local/forward", ["decoder/*"])
