import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from config import load
from models.dino.build import build_dino, timm_backbone
from models.richsem import official_checkpoint as official
from models.richsem.build import Clip, build_official, build_richsem, encode_vocabulary
from models.richsem.classifier import LanguageClassifier, TextEmbeddings
from models.richsem.load import open_checkpoint
from tests.fixtures import require_fixture
from tests.models.richsem.official_files import official_state, openai_clip, write
from tests.models.tiny import COUNTS, NAMES, baseline_config, make_images, targets, tiny_config, tokenizer
from tests.source_files import ROOT
from util.errors import UserError

COLUMNS = ("none", *NAMES)
IMAGES = (0, *COUNTS)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def clip() -> Clip:
    return Clip(openai_clip(), tokenizer())


def official_config(**options):
    """As the release's: batch norm of the backbone frozen."""
    return tiny_config(backbone_weights="default", **options)


def official_baseline(**options):
    return baseline_config(backbone_weights="default", **options)


def ours(config, clip) -> torch.nn.Module:
    """A model of ours with column 0 unused, every weight random."""
    torch.manual_seed(0)
    text = encode_vocabulary(clip, COLUMNS, config.text_cache_dir, unused=(0,))
    model = build_richsem(config, text, timm_backbone(config, load=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def same_output(first, second) -> bool:
    a, b = first.eval()(make_images()), second.eval()(make_images())
    return torch.allclose(a.final.logits, b.final.logits, atol=1e-4) and torch.allclose(
        a.final.boxes_cxcywh, b.final.boxes_cxcywh, atol=1e-5
    )


@pytest.mark.parametrize(
    "options", [{}, {"use_mlp_proj": True}, {"share_vl_proj": True}, {"enc_cls_agn": True}]
)
def test_a_richsem_file_comes_back_as_the_model_that_wrote_it(options, clip, cache, tmp_path):
    config = official_config(text_cache_dir=cache, **options)
    model = ours(config, clip)
    path = write(tmp_path / "official.pth", official_state(model.state_dict(), 2, clip.model), num_classes=8)
    checkpoint = open_checkpoint(path)
    parts = build_official(config, checkpoint, COLUMNS, IMAGES, unused=(0,))
    found, wanted = parts.model.state_dict(), model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[k], wanted[k], atol=1e-5) for k in wanted)
    assert same_output(parts.model, model)
    given = targets()
    semantic = parts.teacher(make_images(), given)
    assert torch.isfinite(parts.criterion(parts.model.train()(make_images(), given), given, semantic).total)


def test_vocabulary_scale_and_teacher_come_from_the_clip_inside(clip, cache):
    config = official_config(text_cache_dir=cache)
    state = official_state(ours(config, clip).state_dict(), 2, clip.model)
    scale = torch.tensor(1.25)
    state["class_embed.logit_scale"] = scale
    parts = build_official(config, official.as_official({"model": state}), COLUMNS, IMAGES, unused=(0,))
    expected = encode_vocabulary(clip, COLUMNS, cache, unused=(0,)).raw
    text = parts.model.head.classifier.text
    assert torch.allclose(text.raw, expected, atol=1e-5) and text.log_scale == scale
    inside = clip.model.visual.state_dict()
    assert all(torch.equal(v, inside[k]) for k, v in parts.teacher.encoder.visual.state_dict().items())


def test_a_shared_projection_may_stand_under_one_name(clip, cache):
    config = official_config(text_cache_dir=cache, share_vl_proj=True)
    model = ours(config, clip)
    state = official_state(model.state_dict(), 2, clip.model)
    state = {k: v for k, v in state.items() if ".clip_visual_proj." not in k}
    parts = build_official(config, official.as_official({"model": state}), COLUMNS, IMAGES, unused=(0,))
    assert same_output(parts.model, model)
    assert parts.model.head.semantic_projection is parts.model.head.classifier.projection


@pytest.mark.parametrize("options", [{}, {"enc_cls_agn": True}])
def test_a_baseline_file(options, tmp_path):
    config = official_baseline(**options)
    torch.manual_seed(0)
    model = build_dino(config, len(COLUMNS), backbone=timm_backbone(config, load=False))
    checkpoint = open_checkpoint(write(tmp_path / "b.pth", official_state(model.state_dict(), 2, None)))
    parts = build_official(config, checkpoint, COLUMNS, IMAGES, unused=(0,))
    assert parts.teacher is None and same_output(parts.model, model)


def test_the_releases_baseline_mixes_a_linear_and_a_language_head(clip, cache):
    config = official_baseline(text_cache_dir=cache)
    torch.manual_seed(0)
    text = TextEmbeddings(torch.zeros(len(COLUMNS), 16), clip.model.logit_scale)
    encoder = LanguageClassifier(torch.nn.Linear(32, 16, bias=False), text)
    state = build_dino(config, len(COLUMNS), encoder, timm_backbone(config, load=False)).state_dict()
    state = official_state(state, 2, clip.model, owners=["transformer.enc_out_class_embed"])
    model = build_official(config, official.as_official({"model": state}), COLUMNS, IMAGES, unused=(0,)).model
    assert isinstance(model.query_selection.classifier, LanguageClassifier)
    assert isinstance(model.head.classifier, torch.nn.Linear)
    assert model.query_selection.classifier.text.raw.abs().sum() > 0


def test_a_file_without_its_clip_takes_the_configured_one(clip, cache, monkeypatch):
    config = official_config(text_cache_dir=cache)
    model = ours(config, clip)
    state = official_state(model.state_dict(), 2, clip.model)
    stripped = {k: v for k, v in state.items() if ".clip." not in k}
    monkeypatch.setattr("models.richsem.build.configured_clip", lambda config: clip)
    parts = build_official(config, official.as_official({"model": stripped}), COLUMNS, IMAGES, unused=(0,))
    assert same_output(parts.model, model)


def test_data_parallel_names(clip, cache):
    state = official_state(ours(official_config(text_cache_dir=cache), clip).state_dict(), 2, clip.model)
    wrapped = official.as_official({"model": {f"module._orig_mod.{k}": v for k, v in state.items()}})
    assert wrapped.weights.keys() == state.keys()


def test_heads_that_differ_by_layer_are_refused():
    config = official_baseline()
    model = build_dino(config, 8, backbone=timm_backbone(config, load=False))
    state = official_state(model.state_dict(), 2, None)
    state["bbox_embed.1.layers.0.weight"] = state["bbox_embed.1.layers.0.weight"] + 1
    with pytest.raises(UserError, match=r"differ by layer: bbox_embed\.1\.layers\.0\.weight"):
        official.convert_state(state)


def test_an_unknown_tensor_is_named():
    with pytest.raises(UserError, match=r"unknown role: transformer\.new\.weight"):
        official.convert_state({"transformer.new.weight": torch.zeros(1)})


def test_a_lost_scale_is_named():
    with pytest.raises(UserError, match="no logit_scale"):
        official.logit_scale({})


def test_a_damaged_file_of_another_size_is_named(clip, cache):
    config = official_config(text_cache_dir=cache)
    state = official_state(ours(config, clip).state_dict(), 2, clip.model)
    state["transformer.tgt_embed.weight"] = torch.zeros(3, 32)
    with pytest.raises(UserError, match=r"'query_selection\.content\.weight' has shape \(3, 32\)"):
        build_official(config, official.as_official({"model": state}), COLUMNS, IMAGES, unused=(0,))


def test_only_official_files_are_official(tmp_path):
    assert official.as_official({"model": {"encoder.level_embed": torch.zeros(1)}}) is None
    assert official.as_official({"weights": {}}) is None
    assert official.as_official([1, 2]) is None
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="neither a checkpoint of this project nor of the official release"):
        open_checkpoint(tmp_path / "other.pth")


def test_arguments_become_plain_values(tmp_path):
    state = {"transformer.level_embed": torch.zeros(1)}
    path = write(tmp_path / "o.pth", state, num_classes=1204, backbone="resnet50", lr=1e-4, scales=[480, 512])
    found = open_checkpoint(path)
    assert found.arguments == {"num_classes": 1204, "backbone": "resnet50", "lr": 1e-4, "scales": [480, 512]}
    assert official.as_official({"model": state, "args": {"lr": 1}}).arguments == {"lr": 1}
    assert official.as_official({"model": state}).arguments == {}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["model", "args"])
def test_a_file_that_runs_code_is_refused(place, tmp_path):
    victim = tmp_path / "written"
    content = {"model": {"transformer.level_embed": torch.zeros(1)}, "args": argparse.Namespace()}
    if place == "model":
        content["model"] = Evil(victim)
    else:
        content["args"].lr = Evil(victim)
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: damaged, or not plain data") as caught:
        open_checkpoint(tmp_path / "evil.pth")
    assert not victim.exists() and "\n" not in str(caught.value)
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert victim.exists()  # it would have


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_one_line(content, tmp_path):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.pth: is (an empty|a text|cut off)") as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"absent\.pth: no such checkpoint"):
        open_checkpoint(tmp_path / "absent.pth")


def test_columns_are_lvis_ids():
    categories = {3: "cat", 1: "old_boat"}
    assert official.column_names(categories, 5) == ("none", "old_boat", "none", "cat", "none")
    assert official.unused_columns(categories, 5) == (0, 2, 4)
    with pytest.raises(UserError, match=r"id 3 \('cat'\) does not fit the model's 3 columns"):
        official.column_names(categories, 3)


def test_how_many_columns():
    linear = {"class_embed.0.weight": torch.zeros(9, 2)}
    assert official.class_columns(linear, {"num_classes": 5}) == 9
    assert official.class_columns({}, {"num_classes": 5}) == 5
    assert official.class_columns({}, {}) == 1204


def manifest_model(case: Mapping, manifest: Mapping):
    """Our model of a case, without memory for its weights."""
    config = load(ROOT / case["config"], case["overrides"])
    columns = case["num_classes"]
    with torch.device("meta"):
        if config.use_language:
            text = TextEmbeddings(torch.zeros(columns, 1024), torch.zeros(()))
            return build_richsem(config, text, timm_backbone(config, load=False))
        return build_dino(config, columns, backbone=timm_backbone(config, load=False))


@pytest.mark.parametrize("name", ["richsem_r50", "richsem_r50_l1_aux", "dino_r50"])
def test_every_tensor_of_the_releases_models_has_its_place_and_shape(name):
    manifest = json.loads(require_fixture(f"parity/{name}.manifest.json").read_text())
    case = json.loads(require_fixture(f"parity/{name}.json").read_text())
    state = {k: torch.empty(shape, device="meta") for k, shape in manifest.items()}
    placed = {official.our_name(k): tuple(v.shape) for k, v in state.items()}
    placed.pop(None, None)
    own = {k: tuple(v.shape) for k, v in manifest_model(case, manifest).state_dict().items()}
    derived = {k for k in own if ".text." in k or k.startswith("denoising.label_embedding.classifier.")}
    assert placed == {k: v for k, v in own.items() if k not in derived}
    for official_name in manifest:
        kept_elsewhere = ".clip." in official_name or official_name.endswith(
            ("logit_scale", "num_batches_tracked")
        )
        assert (official.our_name(official_name) is None) == kept_elsewhere, official_name
