import json

import open_clip
import pytest
import torch

from models.richsem.clip import clip_from_state, load_clip, normalisation, resolve_name
from tests.models.tiny import clip_settings, tiny_clip
from util.errors import UserError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """(configuration, weights) of the tiny CLIP as files; open_clip forgets them afterwards."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    settings, weights = tmp_path / "tiny-test-clip.json", tmp_path / "weights.pt"
    settings.write_text(json.dumps(clip_settings()))
    torch.save(tiny_clip().state_dict(), weights)
    return settings, weights


def test_local_configuration_and_weights(files):
    settings, weights = files
    model = load_clip(str(settings), str(weights))
    wanted = tiny_clip().state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_float16_weights_are_float32_afterwards(files):
    settings, weights = files
    torch.save({k: v.half() for k, v in tiny_clip().state_dict().items()}, weights)
    assert {p.dtype for p in load_clip(str(settings), str(weights)).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "pretrained", "resolved"),
    [
        ("RN50", "openai", "RN50-quickgelu"),
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("RN50", "cc12m", "RN50"),
        ("ViT-B-32", "laion2b_s34b_b79k", "ViT-B-32"),
        ("RN50-quickgelu", "openai", "RN50-quickgelu"),
        ("ViT-B-16-SigLIP", "webli", "ViT-B-16-SigLIP"),
    ],
)
def test_openai_weights_mean_quick_gelu(name, pretrained, resolved):
    assert resolve_name(name, pretrained) == resolved


def test_a_local_file_of_an_openai_model_means_quick_gelu_too(tmp_path):
    (tmp_path / "RN50.pt").write_bytes(b"")
    assert resolve_name("RN50", str(tmp_path / "RN50.pt")) == "RN50-quickgelu"
    assert resolve_name("ViT-H-14-378", str(tmp_path / "RN50.pt")) in open_clip.list_models()


def test_a_local_file_gets_the_normalisation_of_the_published_weights(files, tmp_path, monkeypatch):
    assert normalisation("ViT-B-16-SigLIP") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation("RN50-quickgelu")[0][0] == pytest.approx(0.48145466)
    assert normalisation("ViT-L-14") is None  # its tags differ
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS})
    small = files[0].rename(tmp_path / "MobileCLIP2-S0.json")
    visual = load_clip(str(small), str(files[1])).visual
    assert visual.image_mean == (0.0, 0.0, 0.0) and visual.image_std == (1.0, 1.0, 1.0)


def refused(name, pretrained) -> str:
    with pytest.raises(UserError) as caught:
        load_clip(str(name), str(pretrained))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_and_tags_that_are_not_there(files, tmp_path):
    settings, weights = files
    assert "Did you mean 'RN50'" in refused("RN5O", "openai")
    assert "Did you mean 'openai'" in refused("RN50", "openaii")
    assert "yfcc15m" in refused("RN50", "nothing_like_it")
    assert "does not exist" in refused(settings, tmp_path / "absent.pt")
    assert "absent.json' does not exist" in refused(tmp_path / "absent.json", weights)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert "is not JSON" in refused(broken, weights)
    other = tmp_path / "no-clip.json"
    other.write_text('{"embed_dim": 4}')
    assert "lacks embed_dim, vision_cfg or text_cfg" in refused(other, weights)


def test_a_wrong_file_is_named_with_what_is_wrong(files, tmp_path):
    settings, weights = files
    state = dict(tiny_clip().state_dict())
    state["visual.conv1.weight"] = torch.zeros(3, 3, 3, 3)
    torch.save(state, weights)
    message = refused(settings, weights)
    assert str(weights) in message and "visual.conv1.weight" in message
    del state["visual.conv1.weight"]
    torch.save(state, weights)
    assert "visual.conv1.weight" in refused(settings, weights)
    weights.write_bytes(b"damaged")
    assert "is a text file" in refused(settings, weights)


def test_damaged_and_hostile_weights_are_refused(files):
    settings, weights = files
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert "does not match its checksum" in refused(settings, weights)
    torch.save({"visual": torch.nn.Linear(1, 1)}, weights)
    message = refused(settings, weights)
    assert "asks for torch.nn.modules.linear.Linear" in message and "weights_only" not in message
    half = weights.with_suffix(".safetensors")
    half.write_bytes(b"\x40" + bytes(7) + b"{")
    assert str(half) in refused(settings, half)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    message = refused("RN50", "openai")
    assert (
        "'openai' of 'RN50-quickgelu' could not be downloaded" in message
        and "set clip_pretrained to the file" in message
    )


def openai_state() -> dict:
    """Names and shapes of OpenAI's layout: heads of 64, so the text tower is 64 wide."""
    settings = clip_settings()
    settings["text_cfg"] = {**settings["text_cfg"], "width": 64, "heads": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.CLIP(**settings, quick_gelu=True).state_dict()


def test_a_clip_from_weights_alone():
    state = openai_state()
    model = clip_from_state(state)
    found = model.state_dict()
    # Exactly as they are: no rounding to float16 on the way.
    assert all(torch.equal(found[k], v) for k, v in state.items())
    activations = {type(m).__name__ for n, m in model.named_modules() if n.endswith("gelu")}
    assert activations == {"QuickGELU"}
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("lost", ["text_projection", "visual.layer2.0.conv1.weight", "ln_final.weight"])
def test_an_incomplete_clip_is_one_line(lost):
    state = openai_state()
    del state[lost]
    with pytest.raises(UserError, match="incomplete") as caught:
        clip_from_state(state)
    assert "\n" not in str(caught.value)
