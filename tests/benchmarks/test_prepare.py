import json
import sys

from benchmarks import prepare


def test_pictures_are_prepared_and_read_straight_from_the_tars(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    arguments = ["--pictures", "1000", "--reads", "20", "--workers", "1", "--only", "prepare/read"]
    arguments += ["--json", str(out), "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["prepare.py", *arguments])
    prepare.main()
    content = json.loads(out.read_text())
    assert content["notes"]["tars"] == 997
    (row,) = content["rows"]
    assert row["case"] == "prepare/read" and row["candidate"] > 0 and row["reference"] is None
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
