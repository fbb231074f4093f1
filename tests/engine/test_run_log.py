"""`log.jsonl` across stops, damage and full disks."""

import json
import logging
from pathlib import Path

import pytest

from engine.run_log import LogPosition, RunLog, read_log


def epoch_entry(epoch: int) -> dict:
    return {"epoch": epoch, "step": 4 * epoch, "total": 1.0, "losses": {}, "metrics": None}


def step_entry(epoch: int, iteration: int) -> dict:
    numbers = {"lr": 1.0, "grad_norm": 1.0, "total": 1.0, "losses": {}}
    return {"epoch": epoch, "iteration": iteration, "step": 4 * epoch - 4 + iteration, **numbers}


def write(path: Path) -> list[bytes]:
    """The log of three epochs, each with lines at batch 2 and 4."""
    log = RunLog(path)
    for epoch in (1, 2, 3):
        for iteration in (2, 4):
            log.step(step_entry(epoch, iteration), "")
        log.epoch(epoch_entry(epoch))
    return path.read_bytes().splitlines(keepends=True)


def places(path: Path) -> list[tuple]:
    return [(e["kind"], e["epoch"], e.get("iteration")) for e in read_log(path)]


@pytest.mark.parametrize(
    ("position", "kept"),
    [
        (LogPosition(), 0),
        (LogPosition(0, 3), 1),
        (LogPosition(1, 0, 1), 3),
        (LogPosition(1, 2, 1), 4),
        (LogPosition(2, 0, 1), 5),
        (LogPosition(2, 0, 2), 6),
        (LogPosition(3, 0, 3), 9),
    ],
)
def test_lines_beyond_the_checkpoint_are_set_aside(tmp_path, position, kept):
    path, later = tmp_path / "log.jsonl", tmp_path / "log.jsonl.later"
    lines = write(path)
    torn = b'{"kind": "step", "epo'
    with open(path, "ab") as file:
        file.write(torn)
    assert len(read_log(path)) == 9
    RunLog(path, position)
    assert path.read_bytes() == b"".join(lines[:kept])
    assert later.read_bytes() == b"".join([*lines[kept:], torn + b"\n"])
    before = later.read_bytes()
    RunLog(path, position)
    assert later.read_bytes() == before, "a second resume finds nothing more"


@pytest.mark.parametrize(
    "damage",
    [
        *(b'{"kind": "st', b"5", b"null", b"\0\0\0\0", b'{"a": "\xff\xfe"}', b"[" * 5000),
        *(b'{"epoch": "two"}', b'{"kind": "step", "epoch": 1, "iteration": []}'),
    ],
)
def test_damaged_lines_are_skipped_and_stay(tmp_path, caplog, damage):
    path = tmp_path / "log.jsonl"
    lines = write(path)
    lines.insert(2, damage + b"\n")
    path.write_bytes(b"".join(lines))
    assert len(read_log(path)) == 9
    RunLog(path, LogPosition(2, 0, 2))
    assert path.read_bytes() == b"".join(lines[:7])
    assert "1 damaged lines stay as they are" in caplog.text


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = write(path)
    path.write_bytes(b"".join(lines)[:-1])
    RunLog(path, LogPosition(3, 0, 3)).epoch(epoch_entry(4))
    assert [p[1] for p in places(path) if p[0] == "epoch"] == [1, 2, 3, 4]


def test_a_log_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/full")
    log = RunLog(path)
    for epoch in (1, 2):
        log.epoch(epoch_entry(epoch))
    log.sync()
    assert len(caplog.messages) == 1
    assert "log.jsonl: cannot be written (No space left on device); training goes on" in caplog.messages[0]


def test_lines_go_on_when_there_is_room_again(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    log.epoch(epoch_entry(1))
    whole = path.rename(tmp_path / "moved")
    path.symlink_to("/dev/full")
    log.epoch(epoch_entry(2))
    path.unlink()
    whole.rename(path)
    log.epoch(epoch_entry(3))
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_log_that_cannot_be_set_right_does_not_stop_a_resume(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    write(path)
    (tmp_path / "log.jsonl.later").symlink_to("/dev/full")
    RunLog(path, LogPosition(1, 0, 1)).epoch(epoch_entry(2))
    assert "cannot be written" in caplog.text
    assert len(read_log(path)) == 10, "nothing is lost"
