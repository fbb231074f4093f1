"""Checkpoints written by a thread: whole, in order, the last few kept, nothing good ever lost."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engine.checkpoint_writer import CheckpointWriter, Snapshot
from engine.run_directory import RunDirectory
from tests.checkpoints import read_checkpoint
from util.checkpoint import Checkpoint
from util.errors import UserError


def checkpoint(step: int, value: float | None = None, size: int = 50) -> Checkpoint:
    weights = torch.full((size,), float(step) if value is None else value)
    state = {"step": torch.tensor(float(step)), "exp_avg": weights * 0, "exp_avg_sq": weights * 0}
    return Checkpoint(
        model={"w": weights, "tied": weights},
        optimizer={"w": state},
        scheduler={"position": step, "steps_per_epoch": 1},
        scaler={},
        ema={"model": {"w": weights + 1, "tied": weights + 1}, "updates": step},
        epoch=step,
        rng=[],
    )


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path)


def files(run: RunDirectory) -> dict[str, int]:
    """Name -> epoch of every file of the folder."""
    return {path.name: read_checkpoint(path).epoch for path in sorted(run.path.iterdir())}


def test_earlier_checkpoints_stay_under_their_steps(run):
    writer = CheckpointWriter(run, keep=2)
    for step in (1, 2, 2, 3, 4, 4):
        writer.save(checkpoint(step), latest=True, best=step == 2)
    writer.close()
    found = {"checkpoint.pth": 4, "checkpoint_2.pth": 2, "checkpoint_3.pth": 3, "checkpoint_best.pth": 2}
    assert files(run) == found
    inodes = {path.stat().st_ino for path in run.path.iterdir()}
    assert len(inodes) == len(found), "a change of one file in place would change another"


def test_a_later_process_keeps_what_it_finds(run, caplog):
    first = CheckpointWriter(run)
    first.save(checkpoint(7), latest=True, best=False)
    first.close()
    (run.path / "checkpoint_mine.pth").write_bytes(b"x")
    # It goes on from an earlier step than the file's: what was written last stays.
    second = CheckpointWriter(run, keep=2)
    for step in (4, 5, 6):
        second.save(checkpoint(step), latest=True, best=False)
    second.close()
    (run.path / "checkpoint_mine.pth").unlink()
    assert files(run) == {"checkpoint.pth": 6, "checkpoint_4.pth": 4, "checkpoint_5.pth": 5}
    run.latest.write_bytes(b"damaged")
    third = CheckpointWriter(run, keep=2)
    third.save(checkpoint(8), latest=True, best=False)
    third.close()
    assert files(run) == {"checkpoint.pth": 8, "checkpoint_4.pth": 4, "checkpoint_5.pth": 5}
    assert caplog.messages == [f"{run.latest}: is a text file (it begins 'damaged'): not kept"]


def test_a_latest_that_is_taken_away_is_written_again(run):
    writer = CheckpointWriter(run, keep=2)
    writer.save(checkpoint(1), latest=True, best=False)
    writer.wait()
    run.latest.unlink()
    writer.save(checkpoint(2), latest=True, best=False)
    writer.close()
    assert files(run) == {"checkpoint.pth": 2}


def test_nothing_is_kept_unless_asked_for(run):
    writer = CheckpointWriter(run)
    for step in (1, 2, 3):
        writer.save(checkpoint(step), latest=step != 2, best=step == 2)
    writer.close()
    assert files(run) == {"checkpoint.pth": 3, "checkpoint_best.pth": 2}


def test_a_copy_does_not_change_with_the_weights_and_uses_its_memory_again():
    snapshot, source = Snapshot(), checkpoint(1)
    first = snapshot.take(source).checkpoint()
    source.model["w"].fill_(7)
    assert first.model["w"].unique().tolist() == [1.0] and first.epoch == 1
    assert first.model["w"] is first.model["tied"], "shared tensors would be written twice"
    second = snapshot.take(checkpoint(2)).checkpoint()
    assert second.model["w"] is first.model["w"] and second.model["w"].unique().tolist() == [2.0]
    larger = snapshot.take(checkpoint(3, size=60)).checkpoint()
    assert larger.model["w"].shape == (60,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("what", ["weights", "averaged weights"])
def test_weights_that_are_not_finite_never_replace_good_ones(run, value, what):
    writer = CheckpointWriter(run)
    writer.save(checkpoint(1), latest=True, best=True)
    broken = checkpoint(2)
    tensors = broken.model if what == "weights" else broken.ema["model"]
    tensors["w"][3] = value
    with pytest.raises(UserError, match=rf"the {what} are not finite, in 'w': no checkpoint is written"):
        writer.save(broken, latest=True, best=True)
    writer.close()
    assert files(run) == {"checkpoint.pth": 1, "checkpoint_best.pth": 1}


@contextmanager
def file_size_limit(size: int):
    """As a disk that is full: no file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_warning_and_the_old_file_stays(run, caplog):
    caplog.set_level("INFO")
    writer = CheckpointWriter(run, keep=3)
    writer.save(checkpoint(1, size=20_000), latest=True, best=True)
    writer.wait()
    with file_size_limit(30_000):
        for step in (2, 3, 4):
            writer.save(checkpoint(step, size=20_000), latest=True, best=True)
        writer.wait()
    assert caplog.messages == [
        f"{run.best}: cannot be written ({os.strerror(27)}); "
        "training goes on, and the checkpoints that are there stay"
    ]
    assert files(run) == {"checkpoint.pth": 1, "checkpoint_best.pth": 1}
    writer.save(checkpoint(5, size=20_000), latest=True, best=False)
    writer.close()
    assert caplog.messages[1:] == ["checkpoints are written again"]
    assert files(run)["checkpoint.pth"] == 5


def test_a_run_whose_last_checkpoint_is_not_there_ends_in_an_error(run):
    writer = CheckpointWriter(run)
    writer.save(checkpoint(1), latest=True, best=False)
    writer.wait()
    with file_size_limit(30_000):
        writer.save(checkpoint(2, size=20_000), latest=True, best=False)
        with pytest.raises(UserError, match=r"checkpoint\.pth: cannot be written \(File too large\)"):
            writer.close()
    assert files(run) == {"checkpoint.pth": 1}


def test_where_there_are_no_links_files_are_copied(run, monkeypatch):
    def no_links(*_: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("util.files.os.link", no_links)
    writer = CheckpointWriter(run, keep=1)
    for step in (3, 4):
        writer.save(checkpoint(step), latest=True, best=True)
    writer.close()
    assert files(run) == {"checkpoint.pth": 4, "checkpoint_3.pth": 3, "checkpoint_best.pth": 4}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_of_a_gpu_are_copied_before_the_next_step():
    weights = torch.zeros(1 << 22, device="cuda")
    snapshot = Snapshot()
    for step in range(1, 6):
        weights.fill_(step)
        copied = snapshot.take(Checkpoint(model={"w": weights}))
        weights.fill_(-1)
        found = copied.checkpoint().model["w"]
        assert found.is_pinned() and found.unique().tolist() == [step]
