import pytest
import torch

from models.richsem.load import load_trained, open_checkpoint
from tests.models.tiny import baseline_config
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError


def test_a_checkpoint_without_class_names_is_named(tmp_path):
    path = tmp_path / "bare.pth"
    save_checkpoint(path, Checkpoint(model={"w": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"bare\.pth: has no class names"):
        load_trained(open_checkpoint(path), baseline_config())


def test_an_official_file_with_an_unknown_tensor_is_named(tmp_path):
    path = tmp_path / "other.pth"
    weights = {"transformer.level_embed": torch.zeros(4, 8), "surprise.weight": torch.zeros(1)}
    torch.save({"model": weights}, path)
    with pytest.raises(UserError, match=r"other\.pth: .*surprise\.weight"):
        open_checkpoint(path)
