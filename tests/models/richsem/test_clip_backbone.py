import pytest
import torch

from config.schema import Config
from models.richsem.build import build_model
from models.richsem.clip_backbone import clip_backbone
from models.richsem.teacher import Teacher
from tests.models.tiny import COUNTS, NAMES, build, make_images, targets, tiny_clip, tiny_config
from util.errors import UserError

STAGES = (1, 2, 3)


def with_clip_backbone() -> Config:
    return tiny_config(backbone="clip", backbone_weights="default", backbone_args={})


def test_its_last_map_is_what_the_teacher_sees():
    visual = tiny_clip().visual
    backbone = clip_backbone(visual, STAGES)
    images = make_images([(64, 96), (96, 64)])
    maps = backbone(images.tensor.float())
    teacher = Teacher(visual)
    seen = teacher.encoder.features(images.tensor.float() * teacher.scale + teacher.shift)
    assert torch.allclose(maps[-1], seen, atol=1e-4)
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape == (2, channels, 96 // stride, 96 // stride)


def test_it_is_a_copy_frozen_up_to_the_first_stage():
    visual = tiny_clip().visual
    backbone = clip_backbone(visual, STAGES)
    trained = {name.split(".")[2] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not any(p.requires_grad for p in visual.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())


def test_a_checkpoint_brings_the_trunks_shape_and_weights_without_any_clip(tmp_path):
    config = with_clip_backbone()
    made = build(config, tmp_path).model.eval()
    again = build_model(config, NAMES, COUNTS, state=made.state_dict(), training=False).model.eval()
    images = make_images()
    assert torch.equal(again(images).final.logits, made(images).final.logits)


def test_it_trains(tmp_path):
    parts = build(with_clip_backbone(), tmp_path)
    images, wanted = make_images(), targets()
    output = parts.model(images, wanted)
    parts.criterion(output, wanted, parts.teacher(images, wanted)).total.backward()
    assert parts.model.backbone.body.trunk.layer2[0].conv1.weight.grad.abs().sum() > 0


def test_other_towers_and_other_backbones_are_named(tmp_path):
    with pytest.raises(UserError, match=r"attention-pooled ResNet.*VisionTransformer"):
        clip_backbone(tiny_clip("vit").visual, STAGES)
    state = build(tiny_config(), tmp_path).model.state_dict()
    with pytest.raises(UserError, match="no backbone='clip'"):
        build_model(with_clip_backbone(), NAMES, COUNTS, state=state, training=False)
