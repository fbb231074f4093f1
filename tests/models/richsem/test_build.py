import pytest
import timm
import torch
from torch import nn

from models.dino.heads import DecoderHead, LinearClassifier
from models.dino.layers import MLP
from models.dino.ops.linear import Linear
from models.dino.output import DetectorOutput
from models.richsem.build import build_model, configured_clip, text_of_state
from models.richsem.classifier import LanguageClassifier
from models.richsem.semantic_head import SemanticHead
from tests.models.tiny import (
    COUNTS,
    NAMES,
    baseline_config,
    build,
    clip_parts,
    make_images,
    targets,
    tiny_config,
)
from util.errors import UserError


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


def losses(parts, counts=(2, 1), image_level: bool = False):
    given = targets(counts, image_level=image_level)
    semantic = parts.teacher(make_images(), given) if parts.teacher is not None else None
    return parts.criterion(parts.model(make_images(), given), given, semantic)


DISTILLED = {
    "plain": {},
    "pred": {"clip_distill_objective": "pred"},
    "pred_all": {"clip_distill_objective": "pred_all", "distill_type": "clip_l1"},
    "every layer": {"distill_aux_layers": True, "use_mlp_proj": True},
    "shared": {"share_vl_proj": True, "use_dynamic_distill_weight": True},
    "federated": {"use_fed_on_kd": True, "use_mlp_proj": True, "use_cls_mlp_proj": False},
    "one class": {"enc_cls_agn": True},
    "no denoising": {"use_dn": False},
    "no branch": {"use_visual_distill": False},
}


@pytest.mark.parametrize("counts", [(2, 1), (0, 0)])
@pytest.mark.parametrize("options", DISTILLED.values(), ids=DISTILLED.keys())
def test_every_parameter_has_a_gradient(options, counts, cache):
    """Ranks with and without boxes exchange the same gradients; losses have the same names on both."""
    parts = build(tiny_config(**options), cache)
    found = losses(parts, counts)
    found.total.backward()
    without = [n for n, p in parts.model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(torch.isfinite(p.grad).all() for p in parts.model.parameters() if p.grad is not None)
    assert found.named.keys() == losses(parts, (1, 1)).named.keys()


@pytest.mark.parametrize("config", [tiny_config, baseline_config])
def test_bfloat16_autocast(config, cache):
    """As the engine runs it: the criterion outside of mixed precision."""
    parts = build(config(), cache)
    given = targets()
    with torch.autocast("cpu", torch.bfloat16):
        semantic = parts.teacher(make_images(), given) if parts.teacher is not None else None
        output = parts.model(make_images(), given)
    found = parts.criterion(output, given, semantic)
    found.total.backward()
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in found.named.values())
    assert all(torch.isfinite(p.grad).all() for p in parts.model.parameters())
    exact = losses(build(config(), cache))
    # The noise of the denoising is drawn anew, and proposals may be ranked otherwise.
    assert found.named["loss_ce"].item() == pytest.approx(exact.named["loss_ce"].item(), rel=0.5)
    parts.model.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        detections = parts.postprocess(parts.model(make_images()), [(50, 60), (70, 80)])
    assert detections[0].boxes_xyxy.dtype == torch.float32 and torch.isfinite(detections[0].scores).all()


def kinds(head) -> tuple[str, str]:
    def kind(module) -> str:
        return {MLP: "mlp", Linear: "linear"}[type(module)]

    return kind(head.classifier.projection), kind(head.semantic_projection)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("linear", "linear")),
        ({"use_mlp_proj": True}, ("mlp", "mlp")),
        ({"use_mlp_proj": True, "use_cls_mlp_proj": False}, ("linear", "mlp")),
        ({"use_mlp_proj": False, "use_cls_mlp_proj": True}, ("linear", "linear")),
        ({"share_vl_proj": True}, ("mlp", "mlp")),
    ],
)
def test_projections(options, expected, cache):
    model = build(tiny_config(**options), cache).model
    head = model.head
    assert kinds(head) == expected
    shared = options.get("share_vl_proj", False)
    assert (head.classifier.projection is head.semantic_projection) == shared
    assert type(model.query_selection.classifier.projection) is Linear
    if "mlp" in expected:
        widths = [tuple(layer.weight.shape) for layer in head.semantic_projection.layers]
        assert widths == [(32, 32)] * 3 + [(16, 32)]


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ({}, {"loss_distill", "loss_distill_dn"}),
        ({"distill_aux_layers": True}, {f"loss_distill{s}" for s in ("", "_0", "_dn", "_dn_0")}),
        ({"use_dn": False}, {"loss_distill"}),
        ({"use_visual_distill": False}, set()),
    ],
)
def test_which_layers_are_distilled(options, extra, cache):
    named = losses(build(tiny_config(**options), cache)).named
    assert {name for name in named if "distill" in name} == extra


def test_distillation_is_learnt_from_on_image_level_batches_too(cache):
    parts = build(tiny_config(mask_bbox=True, mask_giou=True, mask_labels=True, use_dn=False), cache)
    losses(parts, image_level=True).total.backward()
    assert parts.model.head.semantic_projection.weight.grad.abs().sum() > 0
    assert parts.model.head.classifier.projection.weight.grad.abs().sum() == 0


def test_the_parts_of_richsem(cache):
    parts = build(tiny_config(), cache)
    assert isinstance(parts.model.head, SemanticHead)
    assert isinstance(parts.model.query_selection.classifier, LanguageClassifier)
    assert parts.model.head.classifier.text.raw.shape == (len(NAMES), 16)
    scale = clip_parts().model.logit_scale
    assert parts.model.head.classifier.text.log_scale.item() == pytest.approx(scale.item())
    assert parts.criterion.extra_losses[0].text is parts.model.head.classifier.text


def test_the_baseline_needs_no_clip(cache):
    parts = build(baseline_config(), cache)
    assert parts.teacher is None and not parts.criterion.extra_losses
    assert type(parts.model.head) is DecoderHead
    assert text_of_state(parts.model.state_dict()) is None


def test_clip_stays_outside_of_model_and_checkpoint(cache):
    parts = build(tiny_config(), cache)
    assert parts.teacher is not None
    inside = {id(p) for p in parts.model.parameters()}
    assert not inside & {id(p) for p in parts.teacher.parameters()}
    names = parts.model.state_dict().keys()
    assert not [n for n in names if "clip" in n or "teacher" in n or "visual." in n]
    assert any(p.requires_grad for p in parts.model.parameters())


def test_evaluation_has_no_teacher_and_no_branch(cache):
    parts = build(tiny_config(), cache, training=False)
    assert parts.teacher is None
    output = parts.model.eval()(make_images())
    assert type(output) is DetectorOutput and output.final.embedding is None


def test_one_class_for_the_encoder_is_linear(cache):
    classifier = build(tiny_config(enc_cls_agn=True), cache).model.query_selection.classifier
    assert isinstance(classifier, LinearClassifier) and classifier.out_features == len(NAMES)


def test_unused_columns_are_not_reported(cache):
    parts = build(tiny_config(num_select=300), cache, unused=(2,))
    with torch.no_grad():
        (found, _) = parts.postprocess(parts.model.eval()(make_images()), [(9, 9)] * 2)
    assert sorted(set(found.labels.tolist())) == [0, 1, 3, 4, 5, 6]


@pytest.mark.parametrize("config", [tiny_config, baseline_config])
def test_a_checkpoint_rebuilds_the_model_without_clip(config, cache, monkeypatch):
    first = build(config(), cache)
    monkeypatch.setattr("models.richsem.build.configured_clip", lambda config: 1 / 0)
    state = first.model.state_dict()
    second = build_model(config(), NAMES, COUNTS, training=False, state=state).model
    assert all(torch.equal(v, state[k]) for k, v in second.state_dict().items())
    a, b = first.model.eval()(make_images()), second.eval()(make_images())
    assert torch.equal(a.final.logits, b.final.logits)


def test_a_checkpoint_serves_without_its_training_parts(cache):
    state = build(tiny_config(), cache).model.state_dict()
    smaller = tiny_config(use_dn=False, use_visual_distill=False)
    parts = build_model(smaller, NAMES, COUNTS, training=False, state=state)
    assert parts.model.denoising is None and type(parts.model.head) is DecoderHead


def lacking(state):
    del state["encoder.level_embed"]


def misshapen(state):
    state["encoder.level_embed"] = torch.zeros(2, 2)


def unknown(state):
    state["head.new.weight"] = torch.zeros(2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lacking, "has no tensor 'encoder.level_embed'"),
        (misshapen, r"'encoder.level_embed' has shape \(2, 2\), this model needs \(4, 32\)"),
        (unknown, "'head.new.weight' is not a parameter of this model"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(damage, message, cache):
    state = dict(build(tiny_config(), cache).model.state_dict())
    damage(state)
    with pytest.raises(UserError, match=message) as caught:
        build_model(tiny_config(), NAMES, COUNTS, training=False, state=state)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_of_another_length_is_named(cache):
    state = build(tiny_config(), cache).model.state_dict()
    with pytest.raises(UserError, match="vocabulary has 7 classes, the class list 6"):
        build_model(tiny_config(), NAMES[:6], COUNTS[:6], training=False, state=state)


def test_an_empty_class_list():
    with pytest.raises(UserError, match="class list is empty"):
        build_model(baseline_config(), (), ())


def test_a_clip_that_is_not_there(tmp_path):
    config = tiny_config(clip_model="RN5", text_cache_dir=str(tmp_path))
    with pytest.raises(UserError, match="clip_model='RN5'"):
        build_model(config, NAMES, COUNTS)
    with pytest.raises(UserError, match=r"absent\.pt"):
        configured_clip(tiny_config(clip_pretrained=str(tmp_path / "absent.pt")))


def test_a_vision_transformer_teaches_too(cache):
    parts = build(tiny_config(), cache, clip=clip_parts("vit"))
    found = losses(parts)
    found.total.backward()
    assert found.named["loss_distill"] > 0


def test_weights_that_follow_spare_the_backbone_a_download(cache, monkeypatch):
    def refuse(*_, **arguments):
        if arguments.get("pretrained"):
            raise OSError("no network")
        return create(*_, **arguments)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", refuse)
    config = baseline_config(backbone="resnet10t", backbone_weights="default")
    with pytest.raises(UserError, match="could not be downloaded"):
        build_model(config, NAMES, COUNTS)
    body = build_model(config, NAMES, COUNTS, load_backbone=False).model.backbone.body
    assert not any(isinstance(m, nn.BatchNorm2d) for m in body.modules()), "not the pretrained structure"


@pytest.mark.parametrize("trained_on_own_pixels", [True, False])
def test_a_checkpoint_says_in_which_pixels_its_backbone_was_trained(trained_on_own_pixels):
    """Whatever its config names: before revisions that know of timm's pixels, they were ImageNet's."""
    config = baseline_config(backbone="tf_efficientnet_lite0", backbone_weights="default", backbone_args={})
    saved = build_model(config, NAMES, COUNTS, load_backbone=False).model
    assert (saved.backbone.pixels.scale == torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) / 0.5).all()
    if not trained_on_own_pixels:
        saved.backbone.pixels = None
    resumed = build_model(config, NAMES, COUNTS, state=saved.state_dict()).model.eval()
    assert (resumed.backbone.pixels is not None) is trained_on_own_pixels
    with torch.no_grad():
        outputs = [model(make_images()).decoder[-1].logits for model in (saved.eval(), resumed)]
    assert torch.equal(*outputs)
