import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.checkpoints import read_checkpoint
from util.checkpoint import (
    FORMAT,
    Checkpoint,
    check_class_names,
    load_model_state,
    read_content,
    save_checkpoint,
)
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def plain(**entries) -> Checkpoint:
    return Checkpoint(model={"w": torch.arange(3)}, **entries)


def test_plain_data_comes_back(tmp_path):
    path = tmp_path / "checkpoint.pth"
    written = plain(
        class_names=["a"],
        image_counts=[7],
        frequencies=["r"],
        config={"lr": 0.1, "t": (1, 2)},
        epoch=3,
        best_ap=0.5,
        note="first",
    )
    save_checkpoint(path, written)
    found = read_checkpoint(path)
    assert found.path == path and read_content(path)["format"] == FORMAT
    assert torch.equal(found.model["w"], torch.arange(3))
    assert replace(found, path=written.path, model=written.model) == written
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("entry", "value", "kind"), [("model", [1], "list"), ("epoch", "3", "str"), ("ema", 1.0, "float")]
)
def test_an_entry_of_another_kind_is_named(tmp_path, entry, value, kind):
    path = tmp_path / "checkpoint.pth"
    torch.save({"format": FORMAT, "model": {}, entry: value}, path)
    with pytest.raises(UserError, match=rf"damaged checkpoint \(its '{entry}' is of type {kind}\)"):
        read_checkpoint(path)


def test_a_file_without_weights_is_named(tmp_path):
    torch.save({"format": FORMAT}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"c\.pth: damaged checkpoint \(it has no 'model'\)"):
        read_checkpoint(tmp_path / "c.pth")


def test_training_state_without_its_epoch_is_named(tmp_path):
    """It would train from the first epoch again."""
    torch.save(
        {
            "format": FORMAT,
            "model": {},
            "optimizer": {"w": {}},
            "class_names": [],
            "config": {},
            "run": {},
            "note": "",
        },
        tmp_path / "c.pth",
    )
    with pytest.raises(UserError, match=r"c\.pth: damaged checkpoint \(it has no 'epoch'\)"):
        read_checkpoint(tmp_path / "c.pth")


def test_bare_weights_cannot_be_resumed():
    with pytest.raises(UserError, match=r"no optimizer state.*--pretrain_model_path"):
        plain().check_resumable()
    plain(optimizer={}, scheduler={}).check_resumable()


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, plain(epoch=1))

    def save(content, temporary) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match=r"checkpoint.pth: cannot be written .*No space left"):
        save_checkpoint(path, plain(epoch=2))
    assert read_checkpoint(path).epoch == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, plain(epoch=1))
    program = f"""
        import os, signal
        from pathlib import Path
        from util.checkpoint import Checkpoint, save_checkpoint
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        save_checkpoint(Path({str(path)!r}), Checkpoint(model={{}}, epoch=2))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_checkpoint(path).epoch == 1
    save_checkpoint(path, plain(epoch=2))
    assert read_checkpoint(path).epoch == 2


def test_a_missing_file_names_its_nearest_neighbour(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pth", plain())
    with pytest.raises(UserError, match=r"checkpont.pth: no such checkpoint. Did you mean 'checkpoint.pth'"):
        read_checkpoint(tmp_path / "checkpont.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "middle"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, Checkpoint(model={"w": torch.rand(5000)}))
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[:-300], "empty": b"", "text": b"<html>404", "middle": whole[:50] + whole[90:]}[damage]
    )
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class _Runs:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickled_code_does_not_run(tmp_path):
    path, trap = tmp_path / "evil.pth", tmp_path / "made"
    torch.save({"format": FORMAT, "model": _Runs(trap)}, path)
    with pytest.raises(UserError, match="not plain data"):
        read_checkpoint(path)
    assert not trap.exists()


def test_a_torn_file_of_torchs_old_format_is_one_error_line(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": {"a": torch.zeros(3)}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in range(1, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"^.*old\.pth: damaged.*$"):
            read_checkpoint(path)


def test_class_lists_must_agree():
    check_class_names(["cat", "dog"], ("cat", "dog"), "c.pth")
    with pytest.raises(UserError, match="class 1 is 'dog' in the checkpoint, 'cow' in the data"):
        check_class_names(["cat", "dog"], ["cat", "cow"], "c.pth")
    with pytest.raises(UserError, match="1 in the checkpoint, 2 in the data; only the data has 'dog'"):
        check_class_names(["cat"], ["cat", "dog"], "c.pth")
    with pytest.raises(UserError, match="2 in the checkpoint, 1 in the data; only the checkpoint has 'dog'"):
        check_class_names(["cat", "dog"], ["cat"], "c.pth")


def test_weights_that_do_not_fit_name_the_first_tensor():
    model = nn.Linear(2, 3)
    load_model_state(model, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "c.pth")
    assert model.weight.sum() == 6
    with pytest.raises(UserError, match=r"'weight' has shape \(3, 5\), this model needs \(3, 2\)"):
        load_model_state(model, {"weight": torch.ones(3, 5), "bias": torch.ones(3)}, "c.pth")
    with pytest.raises(UserError, match="has no tensor 'bias'"):
        load_model_state(model, {"weight": torch.ones(3, 2)}, "c.pth")
    with pytest.raises(UserError, match=r"'weights' is not a parameter.* Did you mean 'weight'"):
        load_model_state(model, {**model.state_dict(), "weights": torch.ones(1)}, "c.pth")


def test_the_average_is_what_is_evaluated():
    average = {"w": torch.zeros(3)}
    assert plain(ema={"model": average, "updates": 2}).evaluated_weights is average
    assert plain().evaluated_weights["w"].tolist() == [0, 1, 2]
