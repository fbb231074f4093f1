"""Checkpoints as safetensors: a folder or a file opens as a .pth does."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import read_checkpoint
from util.checkpoint import FORMAT, is_published, read_content, save_published
from util.errors import UserError
from util.hub import CONTENT, WEIGHTS

ENTRIES = {
    "class_names": ["", "crème brûlée"],
    "image_counts": [0, 7],
    "config": {"lr": 0.1, "steps": [1, 2]},
    "epoch": 3,
}


@pytest.fixture
def folder(tmp_path):
    shared = torch.arange(6.0)
    weights = {"a": shared[:4].view(2, 2).T, "b": shared, "half": torch.ones(2, dtype=torch.bfloat16)}
    save_published(tmp_path / "model", weights, {**ENTRIES, "license": "ignored by readers"})
    return tmp_path / "model"


def test_folder_and_file_give_what_was_written(folder):
    for path in (folder, folder / WEIGHTS):
        assert is_published(path)
        found = read_checkpoint(path)
        assert torch.equal(found.model["a"], torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
        assert (
            torch.equal(found.model["b"], torch.arange(6.0)) and found.model["half"].dtype == torch.bfloat16
        )
        assert {name: getattr(found, name) for name in ENTRIES} == ENTRIES
        assert found.optimizer is None and found.ema is None
    with pytest.raises(UserError, match="no optimizer state, so training cannot continue"):
        found.check_resumable()


def test_the_file_alone_is_enough_and_the_copy_says_the_same(folder, tmp_path):
    copy = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
    assert copy["class_names"] == ENTRIES["class_names"] and copy["format"] == FORMAT
    alone = (folder / WEIGHTS).rename(tmp_path / "alone.safetensors")
    assert read_checkpoint(alone).epoch == 3
    assert alone.stat().st_mode == (folder / CONTENT).stat().st_mode, "others may not read the weights"


def test_weights_without_metadata_take_the_description_beside_them(folder):
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
    assert read_checkpoint(folder).class_names == ENTRIES["class_names"]
    (folder / CONTENT).write_text("{")
    with pytest.raises(UserError, match=r"config\.json: cannot be read as JSON"):
        read_content(folder)
    (folder / CONTENT).write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"config\.json: does not describe a checkpoint of this project"):
        read_content(folder)
    (folder / CONTENT).unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: has weights only"):
        read_content(folder)


def test_a_flipped_bit_is_noticed_or_changes_nothing(folder):
    path, rng, noticed = folder / WEIGHTS, random.Random(0), 0
    whole, good = path.read_bytes(), read_checkpoint(folder)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(folder)
        except UserError:
            noticed += 1
        else:
            assert found.config == good.config and found.class_names == good.class_names
            assert all(torch.equal(found.model[name], good.model[name]) for name in good.model)
    assert noticed > 250
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
    with pytest.raises(UserError, match=r"safetensors: damaged: its content does not match its checksum"):
        read_content(folder)


def test_a_damaged_file_and_a_folder_of_other_things_are_named(folder, tmp_path):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged checkpoint"):
        read_content(folder)
    with pytest.raises(UserError, match=r"is a folder without model\.safetensors"):
        read_content(tmp_path)
    with pytest.raises(UserError, match=r"absent\.safetensors: no such checkpoint"):
        read_content(tmp_path / "absent.safetensors")
