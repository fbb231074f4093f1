"""A ViT backbone: the printed example, with a small random ViT, trains and loads its own state."""

import pytest
import torch

from config.schema import Config
from engine.build import build_state
from models.dino.backbone import PlainBackbone
from models.richsem.build import load_state
from tests.how_to_add.example import run_example
from tests.models.tiny import NAMES, build, make_images, targets, tiny_config

SMALL_VIT = {
    "backbone_weights": "none",
    "backbone_args": {"embed_dim": 16, "depth": 3, "num_heads": 2},
    "hidden_dim": 64,
    "num_queries": 20,
    "enc_layers": 1,
    "dec_layers": 1,
}


def test_the_example_builds_a_detector():
    names = run_example("A ViT backbone", options=SMALL_VIT)
    backbone = names["detector"].backbone
    assert isinstance(backbone, PlainBackbone)
    assert backbone.strides == tuple(4 * 2**i for i in names["config"].return_interm_indices)


def config() -> Config:
    vit = {key: SMALL_VIT[key] for key in ("backbone_weights", "backbone_args", "hidden_dim")}
    return tiny_config(backbone="vit_small_patch16_dinov3", **vit, lr=1e-3, lr_backbone=1e-4)


def test_it_trains_every_parameter_at_its_own_rate(tmp_path):
    parts = build(config(), tmp_path)
    images, given = make_images(((40, 70), (64, 33))), targets((2, 1), classes=len(NAMES))
    losses = parts.criterion(parts.model(images, given), given, parts.teacher(images, given))
    losses.total.backward()
    without = [name for name, p in parts.model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    optimizer = build_state(config(), parts.model, 10, torch.device("cpu")).optimizer
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    backbone = parts.model.backbone
    (body,) = {rate[id(p)] for p in backbone.body.parameters()}
    (pyramid,) = {rate[id(p)] for p in backbone.pyramid.parameters()}
    assert pyramid == pytest.approx(10 * body)


def test_it_comes_back_from_its_state(tmp_path):
    first, second = (build(config(), tmp_path, seed=seed).model.eval() for seed in (0, 1))
    load_state(second, first.state_dict())
    images = make_images(((40, 70), (64, 33)))
    with torch.no_grad():
        assert torch.equal(first(images).final.logits, second(images).final.logits)
