"""Files that are whole or not there, whoever else writes them."""

from util import files
from util.files import placed_whole


def test_writers_with_the_same_process_number_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "getpid", lambda: 1)
    path = tmp_path / "out.json"
    with placed_whole(path) as first, placed_whole(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["out.json"]
