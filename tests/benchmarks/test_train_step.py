"""Each side of the benchmark does a whole step in a process of its own, and two of one revision the same."""

import json

import pytest

from benchmarks.sides import ROOT, previous_tree
from benchmarks.train_step import main
from util.errors import UserError


@pytest.mark.ci
def test_two_sides_of_one_revision_do_the_same(tmp_path):
    out, plot = tmp_path / "out.json", tmp_path / "parts.png"
    words = ["--small", "--repeats", "1", "--previous", str(ROOT), "--threads", "1"]
    words += ["--only", "step/480x640/cpu/fp32", "--json", str(out), "--plot", str(plot)]
    assert main(words) == 0
    content = json.loads(out.read_text())
    rows = {(row["baseline"], row["metric"]) for row in content["rows"]}
    assert {("previous", "time"), ("previous", "memory")} <= rows
    notes = [content["notes"][f"step/480x640/cpu/fp32: {side}"] for side in ("ours", "previous")]
    assert notes[0]["operators"] == notes[1]["operators"] > 1000
    assert notes[0]["scalar reads"] == 0
    assert notes[0]["first loss"] == notes[1]["first loss"]
    assert {"teacher", "backbone", "backward encoder", "clipping", "optimizer"} <= set(
        notes[0]["ms of each part"]
    )
    assert plot.stat().st_size > 5000


@pytest.mark.ci
def test_the_criterion_alone(tmp_path):
    out = tmp_path / "out.json"
    words = ["--small", "--repeats", "1", "--previous", str(ROOT), "--threads", "1"]
    assert main([*words, "--only", "criterion/cpu", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    ours, again = (content["notes"][f"criterion/cpu: {side}"] for side in ("ours", "previous"))
    assert ours["first loss"] == again["first loss"]
    assert 100 < ours["operators"] == again["operators"] < 700


def test_a_folder_without_the_project_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no main\.py"), previous_tree(tmp_path):
        pass


def test_a_case_of_the_other_device_is_named(tmp_path):
    with pytest.raises(UserError, match="no such case on cpu"):
        main(["--only", "step/*/cuda/bs2", "--previous", str(ROOT)])
