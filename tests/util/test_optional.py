import json

import pytest

from util.errors import UserError
from util.optional import require


def test_an_installed_package_is_imported():
    assert require("json", "hub") is json
    assert require("json.decoder", "hub") is json.decoder


def test_a_missing_package_is_named_with_its_pip_line():
    with pytest.raises(UserError) as caught:
        require("no_such_tracker.sdk", "trackers")
    assert str(caught.value) == "no_such_tracker is not installed: pip install -r requirements/trackers.txt"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import missing_of_theirs", "No module named 'missing_of_theirs'"),
        ("import broken_package.nothing", "No module named 'broken_package.nothing'"),
        ("from json import nothing", "cannot import name 'nothing'"),
        ("raise ImportError('libx.so.3: cannot open shared object file')", "libx.so.3"),
        ("raise OSError('libx.so.4: undefined symbol')", "libx.so.4"),
    ],
)
def test_a_package_that_is_there_but_does_not_import_says_why(tmp_path, monkeypatch, source, reason):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package/__init__.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="broken_package does not import") as caught:
        require("broken_package", "app")
    assert reason in str(caught.value) and "pip install" not in str(caught.value)
