"""The benchmark's two sides do the same work."""

import json

import pytest
import torch

from benchmarks.inference import CPU_CASE, main
from tests.inference.tiny import make_checkpoint
from util.errors import UserError


@pytest.mark.ci
def test_both_sides_find_the_same(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint.pth")
    options = ["--checkpoint", str(checkpoint), "--only", "inference/quickstart*"]
    small = ["--images", "4", "4", "--repeats", "1", "--json", str(tmp_path / "out.json")]
    assert main([*options, *small]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert [(row["case"], row["baseline"]) for row in content["rows"]] == [
        ("inference/quickstart", "124b857"),
        ("inference/quickstart/network", "124b857"),
        ("inference/quickstart/network/batch", "one at a time"),
    ]
    score = content["notes"]["inference/quickstart: largest differences"].split()[1]
    assert float(score.rstrip(",")) < 1e-5
    stages = content["notes"]["inference/quickstart: ms an image"]
    assert set(stages["before"]) == set(stages["now"]) and min(stages["now"].values()) > 0
    with pytest.raises(UserError, match="multiples"):
        main(["--images", "3", "4"])


@pytest.mark.ci
def test_a_batch_beside_the_previous_revision(tmp_path):
    out = tmp_path / "out.json"
    assert main(["--small", "--repeats", "1", "--only", CPU_CASE, "--threads", "1", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    rows = [row for row in content["rows"] if row["baseline"] == "previous"]
    assert [(row["case"], row["metric"]) for row in rows] == [(CPU_CASE, "time"), (CPU_CASE, "memory")]
    assert all(row["candidate"] > 0 and row["reference"] > 0 for row in rows)
    ours, before = (content["notes"][f"{CPU_CASE}: {side}"] for side in ("ours", "previous"))
    # Nobody trains: no losses, no teacher; and ours folds what the previous revision computes every time.
    assert {"backbone", "encoder", "decoder"} <= set(ours["ms of each part"])
    assert not any("backward" in part or part in ("teacher", "criterion") for part in ours["ms of each part"])
    assert 0 < ours["operators"] < before["operators"]


def test_cuda_without_a_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU"):
        main(["--device", "cuda"])
