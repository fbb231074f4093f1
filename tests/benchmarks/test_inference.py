"""The benchmark's two sides do the same work."""

import json

import pytest

from benchmarks.inference import main
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
