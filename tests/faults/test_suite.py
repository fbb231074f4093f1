"""The long suite's program: its table, its files, and that it finds promises that are broken on purpose."""

import json

import pytest

from tests.faults import suite


@pytest.mark.ci
@pytest.mark.parametrize(
    ("plant", "rows"),
    [
        ("no-epoch-line", "killed after an epoch line"),
        ("torn-checkpoint", "killed half a checkpoint"),
        ("forget-rng", "killed after a step"),
        ("workers-draw", "killed half a log line"),
        ("no-lock", "two runs in one folder"),
        ("no-checksum", "a flipped bit"),
    ],
)
def test_a_broken_promise_is_reported_as_lost(plant, rows, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert suite.main(["--plant", plant, "--rows", rows, "--json", str(out)]) == 1
    (row,) = json.loads(out.read_text())["rows"]
    assert row["survived"] < row["tried"]
    assert "LOST" in capsys.readouterr().out


@pytest.mark.ci
def test_rows_that_are_chosen_and_their_table(tmp_path, capsys):
    out = tmp_path / "out.json"
    assert suite.main(["--rows", "killed after evaluation", "--json", str(out)]) == 0
    assert json.loads(out.read_text()) == {
        "rows": [{"fault": "killed after evaluation", "tried": 3, "survived": 3}]
    }
    assert "3 of   3" in capsys.readouterr().out


def test_a_row_that_does_not_exist(capsys):
    with pytest.raises(SystemExit):
        suite.main(["--rows", "an earthquake"])
    assert "no row contains 'an earthquake'" in capsys.readouterr().err
