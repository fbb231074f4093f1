import pytest

from engine.run_directory import RunDirectory
from engine.run_log import RunLog, read_log
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


@pytest.mark.parametrize("file", ["checkpoint.pth", "checkpoint_best.pth", "log.jsonl"])
def test_a_used_folder_is_an_error(tmp_path, file):
    (tmp_path / file).write_bytes(b"x")
    run = RunDirectory(tmp_path)
    with pytest.raises(UserError, match="holds another run") as caught:
        run.open_for_training()
    assert "\n" not in str(caught.value)
    assert ("--resume" in str(caught.value)) == (file == "checkpoint.pth")


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


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    for epoch in (1, 2, 3):
        log.epoch({"epoch": epoch, "step": epoch, "total": 1.0, "losses": {}, "metrics": None})
    log.close()
    with open(path, "a") as file:
        file.write('{"kind": "step", "epo')
    assert [e["epoch"] for e in read_log(path)] == [1, 2, 3]
    RunLog(path, keep_epochs=2).close()
    assert [e["epoch"] for e in read_log(path)] == [1, 2]
    assert path.read_text().endswith("}\n")
