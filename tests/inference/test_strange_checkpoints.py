"""What a stranger's checkpoint says of itself takes neither network nor memory; it runs or is one line."""

import logging
import tracemalloc

import numpy as np
import pytest
import torch

from inference.load import load_predictor
from models.richsem.load import checkpoint_config, open_checkpoint
from tests.inference.tiny import make_checkpoint
from tests.models.tiny import build as build_tiny
from tests.models.tiny import tiny_config
from tests.network import asked as asked  # a fixture
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError

IMAGE = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = make_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.pth")
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """The content of a checkpoint with a text classifier, whose CLIP is one of open_clip's."""
    folder = tmp_path_factory.mktemp("language")
    config = tiny_config(use_visual_distill=False, data_aug_scales=[64])
    model = build_tiny(config, folder).model
    path = folder / "checkpoint.pth"
    names = [f"class{i}" for i in range(7)]
    save_checkpoint(path, Checkpoint(model=model.state_dict(), class_names=names, config=config.to_dict()))
    return torch.load(path, weights_only=True)


def written(tmp_path, content: dict, **config) -> str:
    path = tmp_path / "strange.pth"
    torch.save({**content, "config": {**content["config"], **config}}, path)
    return str(path)


NESTED: list = []
for _ in range(300):
    NESTED = [NESTED]

REFUSED = {
    "a model of the Hub": ({"backbone": "hf-hub:someone/model"}, "what a checkpoint names is not fetched"),
    "the Hub, spelt otherwise": ({"backbone": "hf_hub:someone/model"}, "--options backbone=NAME"),
    "a folder's model": ({"backbone": "local-dir:/tmp"}, "is not fetched"),
    "no model": ({"backbone": "resnet10y"}, "Did you mean 'resnet10t'"),
    "weights by arguments": ({"backbone_args": {"pretrained": True}}, "'pretrained' is not an argument"),
    "a file by arguments": ({"backbone_args": {"checkpoint_path": "x.pth"}}, "'checkpoint_path' is not"),
    "an address by arguments": (
        {"backbone_args": {"pretrained_cfg": {"url": "http://x.y"}}},
        "is not an arg",
    ),
    "arguments that do not fit": ({"backbone_args": {"stem_width": "wide"}}, "backbone_args do not fit"),
    "wide arguments": ({"backbone_args": {"channels": [10**9] * 4}}, "must not be above 65536"),
    "deep arguments": ({"backbone_args": {"layers": [10**6] * 4}}, "must not be above 512"),
    "arguments of another size": ({"backbone_args": {"channels": [9000] * 4, "stem_width": 8}}, "has shape"),
    "nested arguments": ({"backbone_args": {"channels": NESTED}}, "backbone_args|nested"),
    "another backbone": ({"backbone": "resnet18", "backbone_args": {}}, "has no tensor|has shape"),
    "text that is not there": ({"use_language": True}, "has no text embeddings"),
    "a trunk that is not there": (
        {"backbone": "clip", "backbone_args": {}, "backbone_weights": "default"},
        "clip",
    ),
    "many queries": ({"num_queries": 10**9}, "'num_queries' = 1000000000: must not be above 100000"),
    "more queries than rows": ({"num_queries": 90_000}, "has shape .* this model needs \\(90000"),
    "width": ({"hidden_dim": 10**6}, "must not be above 16384"),
    "more width than weights": ({"hidden_dim": 16384}, "has shape"),
    "more feed-forward than weights": ({"dim_feedforward": 131072}, "has shape"),
    "layers": ({"enc_layers": 10**9}, "must not be above 256"),
    "more layers than weights": ({"dec_layers": 40}, "has no tensor"),
    "points": ({"dec_n_points": 10**7}, "must not be above"),
    "large images": ({"data_aug_scales": [10**5]}, "must not be above 8192"),
    "no number": ({"num_queries": 10**500}, "beyond 64 bits|expected int"),
    "no float": ({"lr": 10**400}, "beyond 64 bits|expected float"),
    "a tensor": ({"num_queries": torch.zeros(3)}, "plain data|expected int"),
    "a tensor for a dead key": ({"query_dim": torch.zeros(3)}, "plain data|only 4 is supported"),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED)
def test_a_config_that_does_not_go_with_its_weights_is_one_line(config, message, content, asked, tmp_path):
    path = written(tmp_path, content, **config)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            load_predictor(path, device="cpu")
    finally:
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert asked == [] and largest < 2**27


CONFIGS = [
    {"backbone_weights": "default"},
    {"backbone_weights": "a1_in1k"},
    {"backbone_weights": "/nowhere/weights.pth"},
    {"backbone_weights": "default", "resnet_pretrain_path": "/nowhere/weights.pth"},
    {"clip_model": "xlm-roberta-base-ViT-B-32", "clip_pretrained": "laion5b_s13b_b90k"},
    {"clip_model": "nowhere.json", "clip_pretrained": "nowhere.pt"},
    {"imagenet_path": "/nowhere", "tracker": ["wandb"]},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_come_from_the_file_whatever_its_config_names(config, content, language, asked, tmp_path):
    for each in (content, language):
        if "backbone_weights" in config:  # pretrained weights freeze batch norms, which then count nothing
            model = {k: v for k, v in each["model"].items() if not k.endswith("num_batches_tracked")}
            each = {**each, "model": model}
        assert len(load_predictor(written(tmp_path, each, **config), device="cpu", score=0)(IMAGE)) > 0
    assert asked == []


def test_a_user_may_say_which_model_a_name_of_the_hub_is(content, asked, tmp_path):
    path = written(tmp_path, content, backbone="hf-hub:someone/model")
    opened = open_checkpoint(path)
    assert checkpoint_config(opened, {"backbone": "resnet10t"}).backbone == "resnet10t"
    assert asked == []


def test_other_words_need_clip_and_the_log_says_which(language, asked, tmp_path, caplog):
    path = written(tmp_path, language, clip_model="RN50", clip_pretrained="cc12m")
    with (
        caplog.at_level(logging.INFO, "models.richsem.clip"),
        pytest.raises(UserError, match="could not be downloaded"),
    ):
        load_predictor(path, device="cpu", names=["class1", "lighthouse"])
    assert "CLIP RN50 'cc12m' is needed" in caplog.text
    assert asked
    asked.clear()
    assert len(load_predictor(path, device="cpu", score=0, names=["class1", "class3"])(IMAGE)) > 0
    assert asked == []
