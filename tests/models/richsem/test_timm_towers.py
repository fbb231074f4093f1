"""Region encoders of open_clip's timm towers, and of its ViTs with other pools than OpenAI's."""

import json
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from models.richsem.region_encoders import TimmConvEncoder, make_region_encoder
from models.richsem.teacher import Teacher
from tests.models.tiny import make_images, targets
from util.errors import UserError

E = 16
CONFIGS = Path(open_clip.__file__).parent / "model_configs"
CONVOLUTIONAL = {
    "convnext": ("test_convnext", {"pool": ""}),
    "convnext mlp": ("test_convnext", {"proj": "mlp"}),
    "efficientnet": ("test_efficientnet", {}),
    "resnet": ("test_resnet", {}),
    "resnet own head": ("test_resnet", {"proj": None}),
    "attention pool": ("test_convnext", {"pool": "rot_attn", "proj": None}),
}
SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64, "num_classes": E}
# Trunks that open_clip's configs have in large: (timm's name, its pool, arguments).
TRUNKS = {
    "siglip": ("vit_base_patch16_siglip_224", "map", SMALL_VIT),
    "pe": ("vit_pe_core_tiny_patch16_384", "map", SMALL_VIT),
    "clip": ("vit_base_patch16_clip_224", "token", SMALL_VIT),
    "eva": ("eva02_base_patch16_clip_224", "token", SMALL_VIT),
    "mean": ("vit_medium_patch16_gap_256", "avg", SMALL_VIT),
    "relative positions": ("vit_relpos_medium_patch16_cls_224", "token", SMALL_VIT),
    "swin": (
        "swin_tiny_patch4_window7_224",
        "avg",
        {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "img_size": 56, "num_classes": E},
    ),
    "fastvit": (
        "fastvit_mci0",
        "avg",
        {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32), "num_classes": E},
    ),
}


def convolutional(kind: str) -> TimmModel:
    name, changes = CONVOLUTIONAL[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = TimmModel(name, E, **{"image_size": 64, **changes})
    return spread(tower)


def small(kind: str, **changes) -> TimmModel:
    """open_clip's wrapper of a trunk with the shape of a released one, in miniature."""
    name, pool, arguments = TRUNKS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = TimmModel("test_vit", E, proj=None, pool="avg", image_size=arguments.get("img_size", 64))
        tower.trunk = timm.create_model(name, global_pool=pool, **{**arguments, **changes})
    return spread(tower)


def spread(tower: TimmModel) -> TimmModel:
    """With norms and positions as unlike their initial ones as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return tower.eval().double()


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2)).double()


@torch.no_grad()
def regions(tower: nn.Module, image: Tensor, *boxes_xyxy: tuple[float, ...]) -> Tensor:
    encoder = make_region_encoder(tower)
    given = torch.tensor([(0, *box) for box in boxes_xyxy]).double()
    return encoder.pool(encoder.features(image), given, image.shape[-2:])


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_the_whole_image_is_what_a_convolutional_tower_makes_of_it(kind):
    tower, side = convolutional(kind), 64
    image = pixels(side, side if kind == "attention pool" else 96)
    with torch.no_grad():
        expected = tower(image)
    assert torch.allclose(regions(tower, image, (0, 0, image.shape[-1], side)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["siglip", "mean", "swin", "fastvit"])
def test_the_whole_image_is_what_a_tower_without_class_token_makes_of_it(kind):
    tower = small(kind)
    image = pixels(*tower.image_size)
    with torch.no_grad():
        expected = tower(image)
    found = regions(tower, image, (0, 0, *tower.image_size))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["clip", "eva", "relative positions"])
def test_with_a_class_token_a_region_is_the_mean_of_its_patches(kind):
    tower = small(kind)
    image, trunk = pixels(64, 64), tower.trunk
    with torch.no_grad():
        patches = trunk.forward_features(image)[:, 1:].view(4, 4, -1)
        means = torch.stack((patches.mean((0, 1)), patches[:2, 1:].mean((0, 1))))
        expected = trunk.head(trunk.fc_norm(means))
    found = regions(tower, image, (0, 0, 64, 64), (16, 0, 64, 32))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["siglip", "pe"])
def test_an_attention_pool_attends_to_the_patches_of_the_region(kind):
    tower = small(kind)
    image, trunk = pixels(64, 64), tower.trunk
    with torch.no_grad():
        patches = trunk.forward_features(image)[:, trunk.num_prefix_tokens :].view(1, 4, 4, -1)
        expected = trunk.head(trunk.fc_norm(trunk.attn_pool(patches[:, 1:, :3].flatten(1, 2))))
    found = regions(tower, image, (0, 16, 48, 64))
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, regions(tower, image, (16, 0, 64, 32)), atol=1e-3)


@pytest.mark.parametrize("kind", ["siglip", "pe", "clip", "eva", "mean"])
def test_positions_are_interpolated_to_an_image_of_another_size(kind):
    """As timm does with dynamic_img_size=True. The image is padded to whole patches."""
    tower, reference = small(kind), small(kind, dynamic_img_size=True)
    image = pixels(90, 48)
    padded = F.pad(image, (0, 0, 0, 6))
    with torch.no_grad():
        trunk = reference.trunk
        patches = trunk.forward_features(padded)[:, trunk.num_prefix_tokens :]
        pooled = trunk.attn_pool(patches) if trunk.attn_pool is not None else patches.mean(1)
        expected = trunk.head(trunk.fc_norm(pooled))
    encoder = make_region_encoder(tower)
    whole = torch.tensor([(0, 0, 0, 48, 96)]).double()
    with torch.no_grad():
        encoder.features(pixels(64, 64))  # another size before
        found = encoder.pool(encoder.features(image), whole, (90, 48))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["swin", "relative positions"])
def test_a_tower_of_one_size_sees_the_image_resized(kind):
    tower = small(kind)
    image = pixels(80, 120)
    resized = F.interpolate(image, size=tower.image_size, mode="bicubic", align_corners=False)
    encoder = make_region_encoder(tower)
    with torch.no_grad():
        assert torch.allclose(encoder.features(image), encoder.features(resized))
        found = encoder.pool(encoder.features(image), torch.tensor([(0, 0, 0, 120, 80)]).double(), (80, 120))
        expected = encoder.embed(encoder.features(resized).mean((2, 3), keepdim=True))
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("kind", [*CONVOLUTIONAL, *TRUNKS])
def test_under_autocast_regions_are_nearly_the_same(kind):
    tower = (convolutional(kind) if kind in CONVOLUTIONAL else small(kind)).float()
    part, images, given = Teacher(tower), make_images(), targets((2, 1))
    exact = part(images, given).ground_truth
    with torch.autocast("cpu", torch.bfloat16):
        found = part(images, given).ground_truth
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found, exact).min() > 0.98


def test_far_apart_logits_of_an_attention_pool_leave_every_region_a_mean():
    tower = small("siglip")
    with torch.no_grad():
        tower.trunk.attn_pool.latent.mul_(1e4)
    found = regions(
        tower.float(), pixels(64, 64).float(), *((x, y, x + 16, y + 16) for x in (0, 48) for y in (0, 48))
    )
    assert found.isfinite().all()
    assert torch.cdist(found, found)[0, 1:].min() > 1e-3


def test_clipas_norm_follows_its_pool():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = {"width": 32, "layers": 2, "heads": 2, "mlp_ratio": 2.0, "output_dim": E}
        tower = VisionTransformer(
            48, 16, **arguments, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True
        )
    image = pixels(48, 48)
    with torch.no_grad():
        expected = spread(tower)(image)
    assert torch.allclose(regions(tower, image, (0, 0, 48, 48)), expected, atol=1e-6)


def other_pool(kind: str, **changes) -> TimmModel:
    tower = small(kind)
    for name, value in changes.items():
        setattr(tower.trunk.attn_pool, name, value)
    return tower


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (TimmModel("test_resnet", E, pool="max"), "kind ResNet, whose pool is not the mean"),
        (TimmModel("mixer_s32_224", E), "kind MlpMixer, whose pool is not the mean"),
        (other_pool("siglip", latent_len=2), "whose attention pool is not one query"),
        (
            VisionTransformer(
                48, 16, 32, 1, 2, 2.0, attentional_pool=True, attn_pooler_heads=2, output_dim=E
            ),
            "the image tower of a CoCa",
        ),
    ],
    ids=["max", "no map", "two queries", "coca"],
)
def test_other_pools_are_refused(tower, message):
    with pytest.raises(UserError, match=message):
        make_region_encoder(tower)


def timm_configs() -> dict[str, dict]:
    """One open_clip config for each timm trunk and pool."""
    found = {}
    for path in sorted(CONFIGS.glob("*.json")):
        config = json.loads(path.read_text())
        vision = config["vision_cfg"]
        if name := vision.get("timm_model_name"):
            found[name, vision.get("timm_pool"), vision.get("timm_proj")] = config
    return {name: config for (name, *_), config in found.items()}


@pytest.mark.ci
@pytest.mark.parametrize("name", timm_configs())
def test_every_timm_tower_of_open_clip_has_a_region_encoder(name, monkeypatch):
    """Shapes only: the towers have no memory, and so no numbers to ask a head about."""
    config = timm_configs()[name]
    monkeypatch.setattr(TimmConvEncoder, "_pools_by_mean", lambda self: True)
    with torch.device("meta"), torch.no_grad():
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        encoder = make_region_encoder(_build_vision_tower(config["embed_dim"], vision).eval())
        features = encoder.features(torch.zeros(2, 3, 224, 256))
        assert encoder.pool(features, torch.zeros(3, 5), (224, 256)).shape == (3, config["embed_dim"])
