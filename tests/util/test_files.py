"""Files that are whole or not there, whoever else writes them."""

from pathlib import Path

import pytest

from util import files
from util.files import atomic_path, cache_directory


def test_writers_with_the_same_process_number_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "getpid", lambda: 1)
    path = tmp_path / "out.json"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_the_folder_is_the_users_choice_then_the_systems(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RICHSEM_CACHE", raising=False)
    assert cache_directory("x") == tmp_path / ".cache" / "richsem" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_directory() == Path("/elsewhere/richsem")
    monkeypatch.setenv("RICHSEM_CACHE", "~/mine")
    assert cache_directory("x") == tmp_path / "mine" / "x"


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "a"
    with atomic_path(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("tw")
        raise ZeroDivisionError
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["a"]
