"""Types, bounds, unknown keys, official keys without effect."""

import dataclasses
import json
import logging

import pytest

from config import Config, from_official_args
from config.official import IGNORED_KEYS, UNSUPPORTED_KEYS
from config.schema import key_fields, key_types
from tests.config.official_values import AUGMENTATION, DEAD, LIVE
from util.errors import UserError

# Keys whose official value says something in the official code's own terms.
TRANSLATED = {"imagenet_path": "", "lr_backbone_names": ("backbone.body",), "backbone_freeze_keywords": ()}


def refusal(values: dict) -> str:
    with pytest.raises(UserError) as caught:
        Config.from_dict(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_official_key_is_known_exactly_once():
    official = {**LIVE, **AUGMENTATION}
    for name in official:
        assert (name in key_types()) != (name in UNSUPPORTED_KEYS), name
    assert frozenset(DEAD) == IGNORED_KEYS
    added = {name for name, field in key_fields().items() if not field.metadata["official"]}
    assert set(key_types()) - added == set(official) - set(UNSUPPORTED_KEYS)
    assert set(UNSUPPORTED_KEYS) < set(official)
    assert not IGNORED_KEYS & (set(official) | added)


def test_official_values_load_and_are_the_defaults():
    config = Config.from_dict({**LIVE, **AUGMENTATION})
    derived = {"num_classes", "dn_labelbook_size"}
    for name, official in {**LIVE, **AUGMENTATION}.items():
        if name in UNSUPPORTED_KEYS:
            continue
        expected = TRANSLATED.get(name, tuple(official) if isinstance(official, list) else official)
        assert getattr(config, name) == expected, name
        if name not in derived:
            assert getattr(Config(), name) == expected, name
    assert Config().num_classes == Config().dn_labelbook_size == 0


def test_every_key_is_documented_in_one_line():
    for name, field in key_fields().items():
        doc = field.metadata["doc"]
        assert doc and "\n" not in doc and not doc.endswith("."), name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lr_bakbone", "lr_backbone"),
        ("num_querys", "num_queries"),
        ("Amp", "amp"),
        ("inst_mask", "inst_masks"),
    ],
)
def test_unknown_key_names_the_nearest(written, meant):
    message = refusal({written: 1})
    assert repr(written) in message and f"Did you mean {meant!r}?" in message


def test_unknown_key_without_a_neighbour():
    assert refusal({"zzzzzzzz": 1}) == "unknown key 'zzzzzzzz'."


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", "fast", "float"),
        ("epochs", 12.0, "int"),
        ("epochs", True, "int"),
        ("use_dn", 1, "bool"),
        ("backbone", None, "str"),
        ("backbone_args", [1], "dict"),
        ("data_aug_scales", 480, "list of int"),
        ("data_aug_scales", [480, "512"], "list of int"),
        ("data_aug_scales2_crop", [1, 2, 3], "list of 2 int"),
        ("mosaic_centre", [0.5], "list of 2 float"),
    ],
)
def test_wrong_type_names_key_value_and_type(name, value, expected):
    message = refusal({name: value})
    assert repr(name) in message and repr(value) in message and f"expected {expected}," in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0),
        ("lr", float("nan")),
        ("clip_max_norm", float("inf")),
        ("batch_size", 0),
        ("mosaic_fill", 256),
    ]
    + [("data_aug_scales", [480, 0]), ("return_interm_indices", [1, 4]), ("dn_label_noise_ratio", 1.5)],
)
def test_value_out_of_bounds(name, value):
    message = refusal({name: value})
    assert repr(name) in message and "must" in message


def test_choice_names_the_nearest():
    message = refusal({"distill_type": "clip_logit"})
    assert "'clip_logits', 'clip_l1'" in message and "Did you mean 'clip_logits'?" in message


def test_gentle_conversions():
    config = Config.from_dict({"lr": 1, "data_aug_scales": [480, 512], "mosaic_centre": [1, 1]})
    assert config.lr == 1.0 and isinstance(config.lr, float)
    assert config.data_aug_scales == (480, 512)
    assert config.mosaic_centre == (1.0, 1.0) and isinstance(config.mosaic_centre[0], float)
    assert Config.from_dict({"resnet_pretrain_path": None}).resnet_pretrain_path == ""


def test_a_dict_value_must_be_plain():
    assert "backbone_args" in refusal({"backbone_args": {"act_layer": object()}})


def test_dicts_are_not_shared():
    given = {"channels": [8, 16]}
    config = Config(backbone_args=given)
    given["channels"].append(32)
    assert config.backbone_args == {"channels": [8, 16]}
    config.to_dict()["backbone_args"]["channels"].append(32)
    assert config.backbone_args == {"channels": [8, 16]}
    assert Config().backbone_args is not Config().backbone_args


def test_frozen_and_checked_on_replacement():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0
    assert dataclasses.replace(config, epochs=3).epochs == 3
    with pytest.raises(UserError, match="nheads"):
        dataclasses.replace(config, nheads=7)


def test_dict_round_trip_through_json():
    config = Config(backbone_args={"channels": [32, 64]}, lr=3e-4, mosaic_centre=(0.7, 1.3))
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_dead_keys_are_listed_once(caplog):
    with caplog.at_level(logging.INFO, logger="config"):
        assert Config.from_dict(dict.fromkeys(DEAD, "anything")) == Config()
    assert len(caplog.records) == 1
    assert all(name in caplog.text for name in DEAD)


def test_left_out_key_at_its_official_value_is_silent(caplog):
    assert Config.from_dict({name: official for name, (official, _) in UNSUPPORTED_KEYS.items()}) == Config()
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "value"),
    [("masks", True), ("num_patterns", 3), ("matcher_type", "SimpleMinsumMatcher"), ("use_cnn_clip", False)]
    + [("decoder_module_seq", ["ca", "sa", "ffn"]), ("frozen_weights", "weights.pth")],
)
def test_left_out_key_at_another_value_stops(name, value):
    message = refusal({name: value})
    assert repr(name) in message and repr(value) in message and "only" in message


def test_origin_precedes_the_message():
    with pytest.raises(UserError, match=r"^some/file\.py: unknown key 'lrr'"):
        Config.from_dict({"lrr": 1}, origins={"lrr": "some/file.py"})


def test_args_of_an_official_checkpoint(caplog):
    flags = {"config_file": "x.py", "options": None, "amp": False, "rank": 0, "seed": 42, "device": "cuda"}
    made = {"some_runtime_thing": 3}
    config = from_official_args({**LIVE, **AUGMENTATION, **dict.fromkeys(DEAD), **flags, **made, "epochs": 5})
    assert config.epochs == 5 and config.num_classes == 1204
    assert "some_runtime_thing" in caplog.text and "config_file" not in caplog.text
    with pytest.raises(UserError, match="inst_masks"):
        from_official_args({"inst_masks": True})


@pytest.mark.parametrize(
    ("start", "end", "epochs", "expected"),
    [
        (0, 0, 24, (0, 24)),
        (8, 10, 24, (8, 10)),
        (8, 40, 24, (8, 24)),
        (2 / 3, 0, 12, (8, 12)),
        (0.7, 0, 12, (8, 12)),
        (0.99, 0, 1, (0, 1)),
        (0.5, 3, 4, (2, 3)),
    ],
)
def test_epochs_of_the_image_level_stream(start, end, epochs, expected):
    config = Config(image_level_start=start, image_level_end=end, epochs=epochs)
    assert config.image_level_epochs == expected
