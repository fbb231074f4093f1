import copy

import pytest
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import Tensor, nn
from torchvision.ops import roi_align

from benchmarks.operators import Operators
from models.richsem.teacher import Teacher
from tests.models.tiny import EMBEDDING, batch_of, make_images, target, targets, tiny_clip
from util.errors import UserError
from util.pixels import IMAGENET_MEAN, IMAGENET_STD
from util.structures import PaddedImages, Targets

CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64).view(3, 1, 1)
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64).view(3, 1, 1)
WHOLE = [0.5, 0.5, 1.0, 1.0]


def teacher(kind: str = "resnet") -> Teacher:
    return Teacher(copy.deepcopy(tiny_clip(kind).visual)).double()


def photographs(*sizes: tuple[int, int]) -> tuple[list[Tensor], PaddedImages]:
    """(pixels in 0..1, the student's batch of them)."""
    generator = torch.Generator().manual_seed(0)
    raw = [torch.rand(3, h, w, generator=generator).double() for h, w in sizes]
    mean = torch.tensor(IMAGENET_MEAN).double().view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).double().view(3, 1, 1)
    return raw, PaddedImages.from_list([(image - mean) / std for image in raw])


def boxes(*images_boxes) -> Targets:
    return batch_of(*(target(b, [0] * len(b), dtype=torch.float64) for b in images_boxes))


def for_clip(pixels: Tensor) -> Tensor:
    return ((pixels - CLIP_MEAN) / CLIP_STD)[None]


@torch.no_grad()
def feature_map(visual: nn.Module, pixels: Tensor) -> Tensor:
    x = visual.stem(pixels)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    return x


def test_the_tower_sees_the_image_in_clips_normalisation():
    seen = []
    part = teacher()
    part.encoder.visual.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    raw, images = photographs((64, 96), (32, 64))
    part(images, boxes([], []))
    assert torch.allclose(seen[0][0], for_clip(raw[0])[0], atol=1e-6)
    assert torch.allclose(seen[0][1, :, :32, :64], for_clip(raw[1])[0], atol=1e-6)
    # The student's zeros in the padding are ImageNet's mean colour.
    colour = for_clip(torch.tensor(IMAGENET_MEAN).double().view(3, 1, 1))[0, :, 0, 0]
    assert torch.allclose(seen[0][1, :, 40, 80], colour, atol=1e-6)


def test_the_towers_own_normalisation_wins_over_clips():
    visual = copy.deepcopy(tiny_clip().visual)
    visual.image_mean, visual.image_std = (0.5, 0.5, 0.5), (0.5, 0.25, 0.5)
    part, seen = Teacher(visual).double(), []
    part.encoder.visual.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    raw, images = photographs((32, 32))
    part(images, boxes([]))
    std = torch.tensor(visual.image_std).double().view(3, 1, 1)
    assert torch.allclose(seen[0][0], (raw[0] - 0.5) / std, atol=1e-6)


def test_a_whole_image_of_clips_size_is_clips_own_embedding():
    part = teacher()
    raw, images = photographs((64, 64))
    found = part(images, boxes([WHOLE])).ground_truth
    with torch.no_grad():
        expected = F.normalize(part.encoder.visual(for_clip(raw[0])), dim=-1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.shape == (1, EMBEDDING) and not found.requires_grad


def test_regions_lie_in_the_unpadded_image():
    """Boxes are in 0..1 of each image without its padding, the map is of the padded batch."""
    part = teacher()
    raw, images = photographs((64, 96), (96, 64))
    given = boxes([[0.25, 0.5, 0.5, 0.4]], [WHOLE, [0.7, 0.3, 0.2, 0.6]])
    found = part(images, given).ground_truth
    colour = for_clip(torch.tensor(IMAGENET_MEAN).double().view(3, 1, 1))[0]
    padded = colour.expand(2, 3, 96, 96).clone()
    padded[0, :, :64, :96], padded[1, :, :96, :64] = for_clip(raw[0])[0], for_clip(raw[1])[0]
    features = feature_map(part.encoder.visual, padded)
    pixels = [
        (0, 0.0, 0.3 * 64, 0.5 * 96, 0.7 * 64),
        (1, 0.0, 0.0, 64.0, 96.0),
        (1, 0.6 * 64, 0.0, 0.8 * 64, 0.6 * 96),
    ]
    for row, region in zip(found, pixels, strict=True):
        rois = torch.tensor([region]).double()
        cut = roi_align(features, rois, output_size=2, spatial_scale=1 / 32, aligned=True)
        with torch.no_grad():
            expected = F.normalize(part.encoder.visual.attnpool(cut), dim=-1)[0]
        assert torch.allclose(row, expected, atol=1e-6)


def test_a_vision_transformers_region_is_the_mean_of_its_projected_patches():
    """The image is resized to the tower's 48 x 48 pixels: 3 x 3 patches of 16."""
    part = teacher("vit")
    _, images = photographs((96, 48))
    given = boxes([WHOLE, [0.5, 1 / 6, 1.0, 1 / 3], [1 / 6, 0.5, 1 / 3, 1.0]])
    found = part(images, given).ground_truth
    tokens, visual = [], part.encoder.visual
    visual.transformer.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    with torch.no_grad():
        raw = images.tensor * part.scale + part.shift
        visual(F.interpolate(raw, size=(48, 48), mode="bicubic", align_corners=False))
        patches = (visual.ln_post(tokens[0]) @ visual.proj)[0, 1:].view(3, 3, EMBEDDING)
    assert torch.allclose(found[0], F.normalize(patches.mean((0, 1)), dim=-1), atol=1e-6)
    assert torch.allclose(found[1], F.normalize(patches[0].mean(0), dim=-1), atol=1e-6)
    assert torch.allclose(found[2], F.normalize(patches[:, 0].mean(0), dim=-1), atol=1e-6)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_images_without_boxes(kind):
    part = teacher(kind)
    _, images = photographs((64, 64), (64, 32))
    assert part(images, boxes([], [])).ground_truth.shape == (0, EMBEDDING)
    assert part(images, boxes([], [WHOLE])).ground_truth.shape == (1, EMBEDDING)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_embeddings_are_unit_vectors_and_depend_on_the_region(kind):
    part = teacher(kind)
    _, images = photographs((64, 64))
    found = part(images, boxes([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4]])).ground_truth
    assert found.norm(dim=-1).tolist() == pytest.approx([1.0, 1.0])
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_one_map_serves_every_question():
    part, calls = teacher(), []
    part.encoder.visual.layer4.register_forward_hook(lambda *_: calls.append(1))
    _, images = photographs((64, 64))
    semantic = part(images, boxes([WHOLE]))
    first = semantic.ground_truth
    again = semantic.embed_boxes(torch.tensor([WHOLE]).double(), torch.tensor([0]))
    assert torch.allclose(first, again)
    assert semantic.ground_truth is first
    assert len(calls) == 1


def test_it_never_trains():
    part = teacher()
    part.train()
    assert not any(module.training for module in part.modules())
    assert not any(p.requires_grad for p in part.parameters())
    before = {k: v.clone() for k, v in part.state_dict().items()}
    semantic = part(make_images(dtype=torch.float64), targets((1, 1), dtype=torch.float64))
    asked = torch.tensor([WHOLE], dtype=torch.float64, requires_grad=True)
    assert not semantic.embed_boxes(asked, torch.tensor([0])).requires_grad
    assert all(torch.equal(v, before[k]) for k, v in part.state_dict().items())


def test_what_it_is_shown_is_not_written_to():
    _, images = photographs((64, 64))
    before = images.tensor.clone()
    teacher()(images, boxes([WHOLE]))
    assert torch.equal(images.tensor, before)


def test_degenerate_regions_are_finite():
    part = teacher()
    _, images = photographs((64, 64))
    found = part(images, boxes([[0.5, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])).ground_truth
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_under_autocast_regions_are_pooled_in_float32(kind):
    part = Teacher(copy.deepcopy(tiny_clip(kind).visual))
    images, given = make_images(), targets((2, 1))
    exact = part(images, given).ground_truth
    with torch.autocast("cpu", torch.bfloat16):
        semantic = part(images, given)
    found = semantic.ground_truth
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found, exact).min() > 0.98


def timm_tower(**changes) -> TimmModel:
    """open_clip's wrapper of a tiny ConvNeXt of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TimmModel("test_convnext", EMBEDDING, **{"image_size": 64, "pool": "", **changes})


def test_a_convnexts_region_is_its_mean_through_the_towers_head():
    part = Teacher(timm_tower()).double()
    raw, images = photographs((64, 96))
    found = part(images, boxes([WHOLE, [1 / 6, 0.5, 1 / 3, 1.0]])).ground_truth
    with torch.no_grad():
        visual, pixels = part.encoder.visual, for_clip(raw[0])
        column = visual.trunk.forward_features(pixels)[..., :1]
        expected = torch.cat((visual(pixels), visual.head(visual.trunk.forward_head(column))))
    assert torch.allclose(found, F.normalize(expected, dim=-1), atol=1e-6)


def test_other_towers_are_refused():
    with pytest.raises(UserError, match="image tower of kind Linear"):
        Teacher(nn.Linear(3, 3))


def test_batch_norms_are_folded_once_and_again_where_weights_change():
    encoder = teacher().encoder
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(encoder.features(pixels), encoder(pixels), rtol=1e-9, atol=1e-9)
    with Operators() as operators:
        encoder.features(pixels)
    assert not any("foreach" in name or "batch_norm" in name for name in operators.counts)
    with torch.no_grad():
        encoder.visual.bn1.running_mean += 1
    torch.testing.assert_close(encoder.features(pixels), encoder(pixels), rtol=1e-9, atol=1e-9)


def test_under_autocast_the_tower_casts_nothing_but_the_images():
    encoder, pixels = teacher().float().encoder, torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        encoder.features(pixels)
        with Operators() as operators:
            assert encoder.features(pixels).dtype == torch.bfloat16
    assert operators.counts["aten::_to_copy"] == 1
