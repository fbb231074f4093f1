from pathlib import Path

import pytest

from util.cache import cache_directory
from util.files import placed_whole


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
    with placed_whole(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), placed_whole(path) as temporary:
        temporary.write_text("tw")
        raise ZeroDivisionError
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["a"]
