import json
import sys
from pathlib import Path

import pytest

from benchmarks import prepare


def test_images_are_prepared_and_read_straight_from_the_tars(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    arguments = ["--images", "1000", "--reads", "20", "--workers", "1", "--only", "prepare/read"]
    arguments += ["--json", str(out), "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
    prepare.main()
    content = json.loads(out.read_text())
    assert content["notes"]["tars"] == 997
    (row,) = content["rows"]
    assert row["case"] == "prepare/read" and row["candidate"] > 0 and row["reference"] is None
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_the_command_is_given_each_flag_once(monkeypatch):
    seen = []
    monkeypatch.setattr(prepare.subprocess, "Popen", lambda command, **_: seen.extend(command))
    prepare.start(Path("x"), 3)
    assert seen[2:] == ["x/images", "--workers", "3"]


@pytest.mark.parametrize("flag", ["--device", "--threads"])
def test_flags_that_would_change_nothing_are_refused(monkeypatch, flag):
    monkeypatch.setattr(sys, "argv", ["prepare.py", flag, "1"])
    with pytest.raises(SystemExit):
        prepare.main()
