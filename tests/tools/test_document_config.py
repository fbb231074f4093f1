"""docs/configuration.md says what the schema says."""

import re

import pytest

from config.official import IGNORED_KEYS, UNSUPPORTED_KEYS
from config.schema import key_fields
from tools import document_config
from util.errors import UserError


def test_the_document_is_current(capsys):
    assert document_config.main(["--check"]) == 0, "run python tools/document_config.py"
    assert "is current" in capsys.readouterr().out


def test_the_document_names_every_key_once():
    document = document_config.DOCUMENT.read_text()
    rows = re.findall(r"^\| `(\w+)`", document, flags=re.MULTILINE)
    assert sorted(rows) == sorted([*key_fields(), *UNSUPPORTED_KEYS])
    dead = document[document.index("<!-- dead: begin -->") :]
    assert set(re.findall(r"`(\w+)`", dead)) >= IGNORED_KEYS


def test_a_change_is_noticed_and_written(tmp_path, monkeypatch, capsys):
    document = document_config.DOCUMENT.read_text()
    stale = tmp_path / "configuration.md"
    stale.write_text(document.replace("Learning rate of the backbone", "Something else"))
    monkeypatch.setattr(document_config, "DOCUMENT", stale)
    assert document_config.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    assert document_config.main([]) == 0
    assert stale.read_text() == document


def test_a_missing_marker_is_named(monkeypatch, tmp_path):
    bare = tmp_path / "configuration.md"
    bare.write_text("# Configuration\n")
    monkeypatch.setattr(document_config, "DOCUMENT", bare)
    with pytest.raises(UserError, match="live: begin"):
        document_config.main([])
