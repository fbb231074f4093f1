import json
from pathlib import Path

import pytest
import torch

from engine.random_state import random_state
from tests.checkpoints import read_checkpoint
from tests.inference.tiny import make_checkpoint
from tests.models.richsem.official_files import write
from tools.inspect_checkpoint import main
from util.checkpoint import save_published


@pytest.fixture
def training(tmp_path) -> Path:
    path = tmp_path / "checkpoint.pth"
    model = read_checkpoint(make_checkpoint(path)).model
    moments = {
        name: {"step": torch.tensor(12.0), "exp_avg": tensor * 0, "exp_avg_sq": tensor * 0}
        for name, tensor in model.items()
    }
    return make_checkpoint(
        path,
        optimizer=moments,
        scheduler={"position": 12, "steps_per_epoch": 5},
        scaler={},
        epoch=2,
        iteration=4,
        best_ap=0.379,
        rng=[random_state()],
        run={"data_path": "DATA", "seed": 42},
        note="two\nlines",
        lr=0.0002,
    )


def inspect(capsys, *words) -> tuple[int, str]:
    status = main([str(word) for word in words])
    return status, capsys.readouterr().out


def test_a_run_in_words(training, capsys):
    status, said = inspect(capsys, training)
    assert status == 0
    assert f"{training}: " in said and "a run that --resume continues" in said
    assert "epoch 2 and 4 batches, step 12 (5 an epoch), 1 ranks" in said
    assert "best AP    37.90" in said and "3: cup, plate, urn" in said and "note       two lines" in said
    assert "lr=0.0002" in said and "hidden_dim=32" in said and "epochs=" not in said
    assert "checksum   right" in said and "head.box_head.layers.0.weight" not in said
    assert (
        "head.box_head.layers.0.weight  32x32  float32  4,096 bytes"
        in inspect(capsys, training, "--tensors")[1]
    )


def test_the_same_as_json(training, capsys):
    status, said = inspect(capsys, training, "--json")
    (found,) = json.loads(said)
    assert (
        status == 0 and found["step"] == 12 and found["best_ap"] == 0.379 and found["config"]["lr"] == 0.0002
    )
    assert found["tensors"]["head.box_head.layers.0.weight"] == {
        "shape": [32, 32],
        "dtype": "torch.float32",
        "bytes": 4096,
    }
    # An average of the gradients and of their squares, and a step of four bytes for each tensor.
    model, count = found["entry_bytes"]["model"], len(found["tensors"])
    assert found["entry_bytes"]["optimizer"] == 2 * model + 4 * count
    assert found["bytes"] == training.stat().st_size


def test_published_and_official_files(training, tmp_path, capsys):
    content = {"class_names": ["cup", "plate", "urn"], "config": dict(read_checkpoint(training).config)}
    save_published(tmp_path / "shared", read_checkpoint(training).model, content)
    status, said = inspect(capsys, tmp_path / "shared")
    assert status == 0 and "weights without training state" in said and "checksum   right" in said
    weights = {"transformer.level_embed": torch.ones(4, 8)}
    status, said = inspect(capsys, write(tmp_path / "official.pth", weights, lr=0.5))
    assert status == 0 and "a checkpoint of the official release" in said and "lr=0.5" in said


def test_what_is_damaged_is_one_line_and_the_others_are_shown(training, tmp_path, capsys):
    whole = training.read_bytes()
    weights = read_checkpoint(training).model["decoder.norm.weight"].numpy().tobytes()
    place = whole.index(weights)
    (tmp_path / "flipped.pth").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    (tmp_path / "page.pth").write_bytes(b"<html>404</html>")
    model = dict(read_checkpoint(training).model)
    model["decoder.norm.bias"] = model["decoder.norm.bias"] / 0
    make_checkpoint(tmp_path / "nan.pth", model=model)
    torch.save([1, 2], tmp_path / "list.pth")
    names = ("flipped.pth", "page.pth", "nan.pth", "list.pth", "absent.pth")
    status, said = inspect(capsys, *(tmp_path / name for name in names), training)
    assert status == 1
    assert said.splitlines()[:3] == [
        f"{tmp_path}/flipped.pth: damaged: its content does not match its checksum",
        f"{tmp_path}/page.pth: is an HTML page, which a server sent in place of the file",
        f"{tmp_path}/nan.pth: damaged checkpoint "
        "(its 'model' holds values that are not finite, in 'decoder.norm.bias')",
    ]
    assert "list.pth: neither a checkpoint of this project nor" in said and "absent.pth: no such" in said
    assert "a run that --resume continues" in said
    status, said = inspect(capsys, tmp_path / "page.pth", "--json")
    assert status == 1 and json.loads(said)[0]["problem"].endswith("in place of the file")
