import argparse
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint import (
    FORMAT,
    check_class_names,
    evaluated_weights,
    load_model_state,
    read_checkpoint,
    save_checkpoint,
    write_atomically,
)
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_plain_data_comes_back(tmp_path):
    path = tmp_path / "checkpoint.pth"
    content = {
        "model": {"w": torch.arange(3)},
        "class_names": ["a"],
        "config": {"lr": 0.1, "t": (1, 2)},
        "rng": None,
    }
    save_checkpoint(path, content)
    found = read_checkpoint(path)
    assert found["format"] == FORMAT
    assert torch.equal(found.pop("model")["w"], torch.arange(3))
    assert {**found, "model": content["model"]} == {"format": FORMAT, **content}
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, {"epoch": 1})

    def write(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"checkpoint.pth: cannot be written .*No space left"):
        write_atomically(path, write)
    assert read_checkpoint(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, {"epoch": 1})
    program = f"""
        import os, signal
        from pathlib import Path
        from engine.checkpoint import write_atomically
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(Path({str(path)!r}), lambda file: file.write(b"new"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_checkpoint(path)["epoch"] == 1
    save_checkpoint(path, {"epoch": 2})
    assert read_checkpoint(path)["epoch"] == 2


def test_a_missing_file_names_its_nearest_neighbour(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pth", {})
    with pytest.raises(UserError, match=r"checkpont.pth: no such checkpoint. Did you mean 'checkpoint.pth'"):
        read_checkpoint(tmp_path / "checkpont.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "middle"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, {"model": {"w": torch.rand(5000)}})
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


def test_foreign_files_go_to_the_importer(tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, path)
    assert read_checkpoint(path, lambda p: {"from": p.name}) == {"from": "official.pth"}
    with pytest.raises(UserError, match="not plain data"):
        read_checkpoint(path)
    torch.save({"model": {}}, path)
    assert read_checkpoint(path, lambda p: {"from": p.name}) == {"from": "official.pth"}
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        read_checkpoint(path)


def test_class_lists_must_agree():
    check_class_names(["cat", "dog"], ("cat", "dog"), "c.pth")
    with pytest.raises(UserError, match="class 1 is 'dog' there and 'cow' here"):
        check_class_names(["cat", "dog"], ["cat", "cow"], "c.pth")
    with pytest.raises(UserError, match="1 classes there, 2 here, only here: 'dog'"):
        check_class_names(["cat"], ["cat", "dog"], "c.pth")
    with pytest.raises(UserError, match="2 classes there, 1 here, only there: 'dog'"):
        check_class_names(["cat", "dog"], ["cat"], "c.pth")


def test_weights_that_do_not_fit_name_the_first_tensor():
    model = nn.Linear(2, 3)
    load_model_state(model, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "c.pth")
    assert model.weight.sum() == 6
    with pytest.raises(UserError, match=r"tensor 'weight' is \(3, 5\) there and \(3, 2\) here"):
        load_model_state(model, {"weight": torch.ones(3, 5), "bias": torch.ones(3)}, "c.pth")
    with pytest.raises(UserError, match="has no tensor 'bias'"):
        load_model_state(model, {"weight": torch.ones(3, 2)}, "c.pth")
    with pytest.raises(UserError, match=r"tensor 'weights' has no place.* Did you mean 'weight'"):
        load_model_state(model, {**model.state_dict(), "weights": torch.ones(1)}, "c.pth")


def test_the_average_is_what_is_evaluated():
    assert evaluated_weights({"model": 1, "ema": {"model": 2}}) == 2
    assert evaluated_weights({"model": 1, "ema": None}) == 1
    assert evaluated_weights({"model": 1}) == 1
