import os
from pathlib import Path

import pytest
from torch import nn

from engine.run_directory import RunDirectory
from tests.checkpoints import read_checkpoint
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError


def test_a_new_folder_is_made(tmp_path):
    run = RunDirectory(tmp_path / "a" / "b")
    run.open_for_training()
    assert run.path.is_dir()
    assert [p.name for p in (run.config, run.log, run.latest, run.best)] == [
        *("config.py", "log.jsonl", "checkpoint.pth", "checkpoint_best.pth")
    ]


def test_an_empty_or_foreign_folder_may_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunDirectory(tmp_path).open_for_training()
    RunDirectory(tmp_path).open_for_training()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("notes.txt", "mine")]


@pytest.mark.parametrize("file", ["checkpoint.pth", "checkpoint_best.pth"])
def test_a_used_folder_is_an_error(tmp_path, file):
    (tmp_path / file).write_bytes(b"x")
    run = RunDirectory(tmp_path)
    with pytest.raises(UserError, match="holds another run: continue it with --resume auto") as caught:
        run.open_for_training()
    assert "\n" not in str(caught.value)


def test_a_log_without_a_checkpoint_is_started_over(tmp_path, caplog):
    run = RunDirectory(tmp_path)
    for name in ("log.jsonl", "tracker_id.txt", "log.txt"):
        (tmp_path / name).write_text("x")
    run.open_for_training()
    assert "has a log but no checkpoint: training starts over" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["log.txt"]


def write(path, epoch: int, **changes) -> None:
    schedule = {"position": epoch, "steps_per_epoch": 1}
    state = {"optimizer": {}, "scheduler": schedule, "model": {}, "epoch": epoch}
    save_checkpoint(path, Checkpoint(**state | changes))


def test_auto_goes_on_from_the_latest_or_starts(tmp_path, caplog):
    run = RunDirectory(tmp_path / "run")
    assert run.newest_checkpoint(read_checkpoint) is None
    write(run.latest, 3)
    write(run.best, 4)
    assert run.newest_checkpoint(read_checkpoint).epoch == 3
    assert not caplog.text


def test_auto_falls_back_and_names_both_files(tmp_path, caplog):
    run = RunDirectory(tmp_path)
    write(run.best, 1)
    write(tmp_path / "checkpoint_step_20.pth", 2)
    write(run.latest, 3)
    os.utime(run.best, (100, 100))
    run.latest.write_bytes(run.latest.read_bytes()[:-300])
    assert run.newest_checkpoint(read_checkpoint).epoch == 2
    lines = caplog.text.strip().splitlines()
    assert len(lines) == 1 and "checkpoint.pth: " in lines[0]
    assert lines[0].endswith(f"going on from {tmp_path / 'checkpoint_step_20.pth'}")
    # Weights alone are no checkpoint to go on from either.
    write(tmp_path / "checkpoint_step_20.pth", 2, optimizer=None)
    assert run.newest_checkpoint(read_checkpoint).epoch == 1
    run.latest.unlink()
    caplog.clear()
    assert run.newest_checkpoint(read_checkpoint).epoch == 1
    assert "checkpoint.pth: no such checkpoint; going on from" in caplog.text


def test_auto_never_starts_over_damaged_checkpoints(tmp_path):
    run = RunDirectory(tmp_path)
    run.latest.write_bytes(b"x")
    with pytest.raises(UserError, match=r"checkpoint.pth: .*has no other checkpoint to go on from"):
        run.newest_checkpoint(read_checkpoint)


def test_a_used_folder_is_continued_from_its_own_checkpoint_only(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.open_for_training()
    run.latest.write_bytes(b"x")
    run.open_for_training(resume=tmp_path / "elsewhere" / ".." / "run" / "checkpoint.pth")
    with pytest.raises(UserError, match="holds another run"):
        run.open_for_training(resume=tmp_path / "other.pth")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file/run: cannot be made"):
        RunDirectory(tmp_path / "file" / "run").open_for_training()
    with pytest.raises(UserError, match=r"file: cannot be made"):
        RunDirectory(tmp_path / "file").open_for_training()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_cannot_be_is_one_line(name, tmp_path):
    run = RunDirectory(tmp_path / name)
    with pytest.raises(UserError, match="cannot be "), run.training(None, run.contents()):
        pass


@pytest.mark.parametrize("name", ["log.jsonl", "run.lock", "config.py"])
def test_a_folder_where_a_file_belongs_is_named(name, tmp_path):
    run = RunDirectory(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}: cannot be "), run.training(None, run.contents()):
        run.describe("", nn.Identity())
    assert name == "run.lock" or not (tmp_path / "run.lock").exists()


def test_a_folder_that_cannot_be_written_to_is_named():
    # Nobody, root neither, makes files there.
    with pytest.raises(UserError, match=r"/proc: cannot be written to"):
        RunDirectory(Path("/proc")).open_for_training()


def test_one_run_at_a_time_trains_in_a_folder(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.training(None, run.contents()):
        with pytest.raises(UserError, match="another run, pid"), run.training(None, run.contents()):
            pass
        write(run.latest, 1)
    with pytest.raises(UserError, match="holds another run"), run.training(None, run.contents()):
        pass
    with run.training(run.latest, run.contents()):
        assert (run.path / "run.lock").exists()
    assert [path.name for path in run.path.iterdir()] == ["checkpoint.pth"]


def test_a_checkpoint_that_was_replaced_since_it_was_read_is_not_gone_on_from(tmp_path):
    run = RunDirectory(tmp_path)
    write(run.latest, 1)
    seen = run.contents()
    write(run.latest, 2)
    with pytest.raises(UserError, match="another run has just trained"), run.training(run.latest, seen):
        pass
    assert not (tmp_path / "run.lock").exists()


def test_half_written_files_of_a_killed_run_are_removed(tmp_path, caplog):
    caplog.set_level("INFO")
    run = RunDirectory(tmp_path)
    write(run.latest, 3)
    hexadecimal = "0123456789abcdef" * 2
    left = [
        f".checkpoint.pth.{hexadecimal}.tmp",
        ".checkpoint_best.pth.4711.tmp",
        f".log.jsonl.{hexadecimal}.tmp",
        f".run.lock.{hexadecimal}.tmp",
    ]
    foreign = [
        ".notes.tmp",
        f"checkpoint.pth.{hexadecimal}.tmp",
        ".checkpoint.pth",
    ]
    for name in left + foreign:
        (tmp_path / name).write_bytes(bytes(10**6))
    with run.training(run.latest, run.contents()):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.pth", *foreign}
    assert "removed 4 half-written files of a stopped run, 4.0 MB" in caplog.messages


def test_another_runs_half_written_files_stay(tmp_path):
    run = RunDirectory(tmp_path)
    half = tmp_path / f".checkpoint.pth.{'a' * 32}.tmp"
    with run.training(None, run.contents()):
        half.write_bytes(b"half")
        write(run.latest, 1)
        with pytest.raises(UserError, match="another run"), run.training(run.latest, run.contents()):
            pass
        assert half.exists()
