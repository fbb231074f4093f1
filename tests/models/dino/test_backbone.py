import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from models.dino.backbone import load_weights, make_backbone
from util.errors import UserError
from util.pixels import IMAGENET_MEAN, IMAGENET_STD

NAME = "resnet10t"
SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}
VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "img_size": 32}
SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


def small(weights: str = "none", levels=(1, 2, 3), **arguments):
    return make_backbone(NAME, levels, weights, arguments=SMALL, **arguments)


def classifier_state(seed: int = 3) -> dict:
    """The weights of a whole timm classifier, its last layer included."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(NAME, num_classes=5, **SMALL).state_dict()


@pytest.fixture
def weight_file(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(classifier_state(), path)
    return str(path)


def frozen(backbone) -> set[str]:
    return {name.split(".")[1] for name, p in backbone.named_parameters() if not p.requires_grad}


def batch_norms(backbone) -> list:
    return [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]


def test_maps_have_the_promised_channels_and_strides():
    backbone = small()
    maps = backbone(torch.zeros(2, 3, 64, 128))
    assert backbone.strides == (8, 16, 32)
    assert backbone.channels == tuple(m.shape[1] for m in maps)
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 16), (4, 8), (2, 4)]


@pytest.mark.parametrize("levels", [(0,), (1,), (0, 3), (0, 1, 2, 3)])
def test_levels_count_from_stride_4(levels):
    assert small(levels=levels).strides == tuple(4 * 2**level for level in levels)


def test_from_scratch_everything_trains():
    backbone = small("none")
    assert frozen(backbone) == set()
    assert batch_norms(backbone)
    before = batch_norms(backbone)[0].running_mean.clone()
    backbone.train()(torch.randn(2, 3, 32, 32))
    assert not torch.equal(before, batch_norms(backbone)[0].running_mean)


def test_pretrained_freezes_batch_norm_stem_and_first_stage(weight_file):
    backbone = small(weight_file)
    assert frozen(backbone) == {"conv1", "layer1"}
    assert not batch_norms(backbone)
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    state = {k: v.clone() for k, v in backbone.state_dict().items() if "running" in k}
    assert state
    backbone.train()(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(v, backbone.state_dict()[k]) for k, v in state.items())


def test_21k_weights_train_everything_but_batch_norm(weight_file):
    backbone = small("default", pretrain_path=weight_file)
    assert frozen(backbone) == set()
    assert not batch_norms(backbone)
    assert torch.equal(backbone.body.conv1[0].weight, classifier_state()["conv1.0.weight"])


def test_keywords_freeze_more(weight_file):
    assert "layer2" in frozen(small(weight_file, freeze_keywords=["layer2"]))


def test_a_checkpoint_will_bring_the_weights(weight_file):
    """Nothing is read or downloaded, and the structure is that of the pretrained backbone."""
    backbone = small("default", load=False)
    assert backbone.state_dict().keys() == small(weight_file).state_dict().keys()
    assert frozen(backbone) == {"conv1", "layer1"}
    absent = make_backbone(NAME, [3], "default", "absent.pth", arguments=SMALL, load=False)
    assert frozen(absent) == set()


@pytest.mark.parametrize("kind", ["model", "state_dict", "bare", "data_parallel", "safetensors"])
def test_kinds_of_weight_files(kind, tmp_path):
    state = classifier_state()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "bare":
        torch.save(state, path)
    elif kind == "data_parallel":
        torch.save({"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    else:
        torch.save({kind: state, "epoch": 3}, path)
    body = small(str(path)).body
    assert torch.equal(body.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    assert torch.equal(body.layer4[0].bn1.running_var, state["layer4.0.bn1.running_var"])


def test_what_did_not_load_is_named(tmp_path, caplog):
    state = classifier_state()
    del state["layer3.0.conv1.weight"]
    state["layer2.0.conv1.weight"] = torch.zeros(3)
    state["extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING, "models.dino.backbone"):
        load_weights(small().body, str(tmp_path / "w.pth"))
    (message,) = [r.getMessage() for r in caplog.records]
    missing, ignored = message.split("not used:")
    assert "layer3.0.conv1.weight" in missing and "layer2.0.conv1.weight" in missing
    assert "extra.weight" in ignored and "layer2.0.conv1.weight" in ignored
    assert "fc." not in message


def test_a_file_that_fits_is_not_commented(weight_file, caplog):
    with caplog.at_level(logging.WARNING):
        small(weight_file)
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "weights", "levels", "arguments", "message"),
    [
        ("resnet10", "none", (1,), {}, r"Unknown model \(resnet10\)\. Did you mean 'resnet10t'"),
        (NAME, "none", (4,), SMALL, "none of stride 64"),
        ("beit_base_patch16_224", "none", (2,), {}, "images of one size only; take another ViT"),
        (NAME, "absent/file.pth", (1,), SMALL, "backbone_weights='absent/file.pth' does not exist"),
        (NAME, "none", (1,), {"chanels": [8]}, "backbone_args do not fit: .*chanels"),
        ("resnet18", "tv_in1", (1,), {}, "Did you mean 'resnet18.tv_in1k'"),
    ],
)
def test_a_mistake_is_named(name, weights, levels, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        make_backbone(name, levels, weights, arguments=arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a weight file", "is a text file"),
        ({"model": {"other.weight": torch.zeros(2)}}, "fits the backbone: it has other.weight"),
        ({"model": {}}, "it has no tensors"),
        (torch.zeros(3), "holds a Tensor"),
        (None, "do not exist"),
    ],
)
def test_a_wrong_file_is_named(content, message, tmp_path):
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        load_weights(small().body, str(path))
    assert "wrong.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_and_hostile_files_are_refused(tmp_path):
    for suffix, content, message in (
        (".safetensors", b"not safetensors", "damaged, or no safetensors file"),
        (".pth", {"w": torch.nn.Linear(1, 1)}, "asks for torch.nn.modules.linear.Linear"),
        (".pth", {3: torch.zeros(1), "w": 4}, "nothing in .* fits the backbone: it has no tensors"),
    ):
        path = tmp_path / f"hostile{suffix}"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(UserError, match=message) as caught:
            load_weights(small().body, str(path))
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_is_described_elsewhere_is_refused_where_a_checkpoint_brings_the_weights():
    with pytest.raises(UserError, match="not fetched"):
        make_backbone("hf-hub:someone/model", (1,), "none", load=False)


def test_convnext_has_no_stem_map_and_trains_whole(tmp_path):
    arguments = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}
    state = timm.create_model("convnext_atto", num_classes=3, **arguments).state_dict()
    torch.save(state, tmp_path / "w.pth")
    backbone = make_backbone("convnext_atto", [1, 2, 3], str(tmp_path / "w.pth"), arguments=arguments)
    assert (backbone.strides, backbone.channels) == ((8, 16, 32), (16, 24, 32))
    assert torch.equal(
        backbone.body.stages_3.blocks[0].conv_dw.weight, state["stages.3.blocks.0.conv_dw.weight"]
    )
    assert frozen(backbone) == set()


def test_swin_takes_images_of_any_size_and_gives_channels_first():
    backbone = make_backbone("swin_tiny_patch4_window7_224", [1, 2, 3], "none", arguments=SWIN)
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert backbone.strides == (8, 16, 32)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 8, 12), (32, 4, 6), (64, 2, 3)]


def test_swin_reads_the_file_of_its_classifier(tmp_path):
    state = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, **SWIN).state_dict()
    torch.save(state, tmp_path / "w.pth")
    backbone = make_backbone("swin_tiny_patch4_window7_224", [3], str(tmp_path / "w.pth"), arguments=SWIN)
    loaded = backbone.body.state_dict()["layers_3.blocks.0.mlp.fc1.weight"]
    assert torch.equal(loaded, state["layers.3.blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize("size", [(64, 96), (70, 33), (16, 16)])
def test_a_vit_has_a_pyramid_at_any_size(size):
    backbone = make_backbone("vit_tiny_patch16_224", (0, 1, 2, 3), "none", arguments=VIT)
    maps = backbone(torch.randn(2, 3, *size))
    assert (backbone.strides, backbone.channels) == ((4, 8, 16, 32), (4, 8, 16, 16))
    shapes = [
        (2, c, -(-size[0] // s), -(-size[1] // s))
        for s, c in zip((4, 8, 16, 32), (4, 8, 16, 16), strict=True)
    ]
    assert [tuple(m.shape) for m in maps] == shapes
    assert all(m.is_contiguous() for m in maps)


def test_the_pyramid_of_a_vit_is_made_of_its_last_map():
    torch.manual_seed(0)
    backbone = make_backbone("vit_tiny_patch16_224", (2,), "none", arguments=VIT)
    images, padded = torch.randn(1, 3, 40, 64), torch.zeros(1, 3, 48, 64)
    padded[:, :, :40] = images
    tokens = backbone.body.model.forward_intermediates(padded, norm=False, intermediates_only=True)[-1]
    assert torch.allclose(backbone(images)[0], backbone.pyramid(tokens)[0], atol=1e-6)


def test_patches_of_14_give_the_nearest_strides():
    backbone = make_backbone(
        "vit_small_patch14_dinov2", (0, 1, 2, 3), "none", arguments={**VIT, "img_size": 28}
    )
    assert backbone.strides == (3.5, 7, 14, 28)
    assert [m.shape[-2:] for m in backbone(torch.randn(1, 3, 30, 50))] == [(9, 15), (5, 8), (3, 4), (2, 2)]


def test_a_vit_reads_the_file_of_its_classifier_and_can_be_frozen(tmp_path, caplog):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT).state_dict()
    torch.save(state, tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        backbone = make_backbone(
            "vit_tiny_patch16_224", (1, 2), str(tmp_path / "w.pth"), freeze_keywords=["model."], arguments=VIT
        )
    assert not caplog.records
    loaded = backbone.body.model
    assert torch.equal(loaded.blocks[1].mlp.fc1.weight, state["blocks.1.mlp.fc1.weight"])
    assert torch.equal(loaded.pos_embed, state["pos_embed"])
    trained = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"pyramid"} and frozen(backbone) == {"model"}


def test_a_vit_without_weights_for_a_checkpoint_has_the_same_structure():
    """Pretrained ViTs train whole; nothing is downloaded where a checkpoint brings the weights."""
    scratch = make_backbone("vit_tiny_patch16_224", (1, 2), "none", arguments=VIT)
    awaiting = make_backbone("vit_tiny_patch16_224", (1, 2), "default", arguments=VIT, load=False)
    awaiting.take_pixels_of([f"backbone.{name}" for name in scratch.state_dict()])
    assert frozen(awaiting) == set()
    awaiting.load_state_dict(scratch.state_dict())
    images = torch.randn(1, 3, 48, 48)
    for a, b in zip(scratch.eval()(images), awaiting.eval()(images), strict=True):
        assert torch.equal(a, b)


OTHER_PIXELS = "tf_efficientnet_lite0"  # (x - 0.5) / 0.5


def test_a_body_gets_pixels_in_the_normalisation_of_its_weights(tmp_path):
    whole = timm.create_model(OTHER_PIXELS)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    backbone = make_backbone(OTHER_PIXELS, [1, 2, 3], str(tmp_path / "w.pth")).eval()
    rgb = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    body = timm.create_model(OTHER_PIXELS, features_only=True, out_indices=[2, 3, 4]).eval()
    load_weights(body, str(tmp_path / "w.pth"))
    with torch.no_grad():
        found, expected = backbone((rgb - mean) / std), body((rgb - 0.5) / 0.5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "weights"), [(OTHER_PIXELS, "none"), ("resnet10t", "default")])
def test_without_other_pixels_the_weights_alone_are_the_state(name, weights):
    backbone = make_backbone(name, [1], weights, load=False)
    assert backbone.pixels is None and all(key.startswith("body.") for key in backbone.state_dict())


def test_weights_bring_the_normalisation_they_were_trained_with():
    new, old = (make_backbone(OTHER_PIXELS, [1], "default", load=False) for _ in range(2))
    old.pixels = None
    saved = [f"backbone.{key}" for key in new.state_dict()]
    old.take_pixels_of(saved)
    old.load_state_dict(new.state_dict())
    assert torch.equal(old.pixels.scale, new.pixels.scale) and torch.equal(old.pixels.shift, new.pixels.shift)
    new.take_pixels_of(["backbone.body.of_another", "head.classifier.weight"])
    assert new.pixels is not None
    new.take_pixels_of([name for name in saved if "pixels" not in name])
    assert new.pixels is None
