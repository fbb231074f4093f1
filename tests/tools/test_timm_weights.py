"""Weights of another package under timm's names."""

import logging

import timm
import torch

from models.dino.backbone import make_backbone
from tools.timm_weights import main


def test_the_detectors_backbone_takes_the_renamed_file(tmp_path, caplog):
    state = timm.create_model("test_efficientnet").state_dict()
    foreign = {f"_{i}.{name.rsplit('.', 1)[-1]}": tensor for i, (name, tensor) in enumerate(state.items())}
    torch.save(foreign, tmp_path / "foreign.pth")
    output = tmp_path / "timm.safetensors"
    assert main(["test_efficientnet", str(tmp_path / "foreign.pth"), str(output)]) == 0
    with caplog.at_level(logging.WARNING):
        backbone = make_backbone("test_efficientnet", [1, 2, 3], str(output))
    assert "not in the file: none" in caplog.text
    assert torch.equal(backbone.body.state_dict()["conv_stem.weight"], state["conv_stem.weight"])
