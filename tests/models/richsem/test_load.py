import pytest
import torch

from models.richsem.build import build_model
from models.richsem.load import load_trained, open_checkpoint
from tests.models.tiny import COUNTS, NAMES, baseline_config
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError


def test_a_checkpoint_without_class_names_is_named(tmp_path):
    path = tmp_path / "bare.pth"
    save_checkpoint(path, Checkpoint(model={"w": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"bare\.pth: has no class names"):
        load_trained(open_checkpoint(path), baseline_config())


def test_a_tensor_that_does_not_fit_is_named_with_its_file(tmp_path):
    config = baseline_config()
    state = build_model(config, NAMES, COUNTS, training=False).model.state_dict()
    state["decoder.norm.weight"] = torch.zeros(3)
    path = tmp_path / "other.pth"
    save_checkpoint(path, Checkpoint(model=state, class_names=NAMES))
    with pytest.raises(UserError, match=r"other\.pth: 'decoder\.norm\.weight' has shape \(3,\)"):
        load_trained(open_checkpoint(path), config)


def test_an_official_file_with_an_unknown_tensor_is_named(tmp_path):
    path = tmp_path / "other.pth"
    weights = {"transformer.level_embed": torch.zeros(4, 8), "surprise.weight": torch.zeros(1)}
    torch.save({"model": weights}, path)
    with pytest.raises(UserError, match=r"other\.pth: .*surprise\.weight"):
        open_checkpoint(path)
