"""`--options KEY=VALUE` as the official command line reads it."""

import pytest

from config import Config, load, parse_options
from config.options import parse_value
from util.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("1.0", 1.0),
        ("1e-4", 1e-4),
        ("True", True),
        ("false", False),
        ("None", None),
        ("resnet50", "resnet50"),
        ("'resnet50'", "resnet50"),
        ("1,2", [1, 2]),
        ("[1,2]", [1, 2]),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
        ("(1,2)", [1, 2]),
        ("a,b", ["a", "b"]),
        ("['a','b']", ["a", "b"]),
        ("[]", []),
        ("{'a': [1, 2]}", {"a": [1, 2]}),
        ("", ""),
    ],
)
def test_values(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_the_type_of_a_known_key_decides():
    pairs = [
        "dn_box_noise_scale=1.0",
        "data_aug_scales=480",
        "lr_backbone_names=backbone",
        "clip_pretrained=123",
    ]
    assert parse_options(pairs) == {
        "dn_box_noise_scale": 1.0,
        "data_aug_scales": [480],
        "lr_backbone_names": ["backbone"],
        "clip_pretrained": "123",
    }
    assert parse_options(["clip_pretrained=a=b,c", "resnet_pretrain_path="]) == {
        "clip_pretrained": "a=b,c",
        "resnet_pretrain_path": "",
    }


@pytest.mark.parametrize("text", ["none", "None", "[none]"])
def test_none_is_a_word_in_a_list_of_words(text):
    assert parse_options([f"tracker={text}"]) == {"tracker": ["none"]}


def test_entries_of_a_dict_and_later_pairs():
    pairs = ["backbone_args.stem_width=8", "backbone_args.channels=[8,16]", "epochs=1", "epochs=2"]
    assert parse_options(pairs) == {"backbone_args": {"stem_width": 8, "channels": [8, 16]}, "epochs": 2}


def test_nothing_given():
    assert parse_options(None) == {} and parse_options([]) == {}


@pytest.mark.parametrize("pair", ["epochs", "=3", "data_aug_scales=[1,2", "data_aug_scales=[[a],b]"])
def test_malformed_pairs(pair):
    with pytest.raises(UserError, match="--options") as caught:
        parse_options([pair])
    assert "\n" not in str(caught.value)


BOMBS = {
    "brackets": "data_aug_scales=" + "[" * 100_000,
    "brackets that close": "data_aug_scales=" + "[" * 3000 + "]" * 3000,
    "braces": "backbone_args=" + "{'a':" * 3000 + "1" + "}" * 3000,
    "entries": "backbone_args." + "a." * 50_000 + "b=1",
    "a long word": "x" * 100_000,
    "digits": "epochs=" + "9" * 100_000,
    "a list as a key": "backbone_args={[1]: 2}",
    "a set": "backbone_args={1, 2}",
    "bytes": "data_aug_scales=(b'x', 3)",
    "no number": "lr=1e999",
    "a zero byte": "data_aug_scales=[\0]",
}


@pytest.mark.parametrize("pair", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_one_short_line(pair):
    with pytest.raises(UserError) as caught:
        Config.from_dict(parse_options([pair]))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["backbone_args={'_delete_': True}"], {}),
        (["backbone_args={'_delete_': True}", "backbone_args.width=3"], {"width": 3}),
        (["backbone_args.width=3", "backbone_args={'_delete_': True, 'depth': 1}"], {"depth": 1}),
        (["backbone_args={'_delete_': False}"], {"stem_width": 8}),
        (["backbone_args=3", "backbone_args={'_delete_': True}"], {}),
        (["backbone_args={'_delete_': True}", "backbone_args=3", "backbone_args={'_delete_': True}"], {}),
    ],
)
def test_a_dict_of_the_file_is_replaced(tmp_path, pairs, expected):
    path = tmp_path / "config.py"
    path.write_text("backbone_args = {'stem_width': 8}\n")
    assert load(path, parse_options(pairs)).backbone_args == expected
