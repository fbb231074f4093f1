import json
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import main as program
from config import Config
from inference.load import load_predictor
from models.dino.build import timm_backbone
from models.richsem.build import Clip, build_richsem, encode_vocabulary
from models.richsem.load import checkpoint_config, load_trained, open_checkpoint
from tests.checkpoints import read_checkpoint
from tests.datasets.tiny import write_all
from tests.inference.tiny import NAMES, TINY, make_checkpoint
from tests.models.richsem.official_files import official_state, openai_clip, write
from tests.models.tiny import make_images, tiny_config, tokenizer
from tools.model_card import Facts, model_card, set_address
from tools.publish import main, missing_facts, portable_config
from util.checkpoint import read_content
from util.errors import UserError
from util.hub import CONTENT, WEIGHTS

METRICS = {"AP": 0.31415926, "AP50": 0.5, "APr": 0.1, "APc": -1.0, "APf": 0.4}
ALL_FACTS = ("--dataset", "Cups v2", "--license", "apache-2.0", "--data_license", "CC-BY-4.0")


def publish(*words) -> int:
    return main([str(word) for word in words])


def card_of(folder: Path) -> tuple[dict, str]:
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def write_log(folder: Path, *entries: dict) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps({"kind": "epoch", **e}) + "\n" for e in entries))


@pytest.fixture
def trained(tmp_path) -> Path:
    """A run of two epochs whose average differs from its last weights."""
    run = tmp_path / "run"
    run.mkdir()
    path = make_checkpoint(run / "checkpoint.pth")
    last = read_checkpoint(path).model
    entries = {
        "model": {name: tensor * 0 for name, tensor in last.items()},
        "ema": {"model": last, "updates": 7},
        "optimizer": {},
        "scheduler": {"position": 2, "steps_per_epoch": 1},
        "run": {"data_path": "/home/me/secret", "dataset_file": "lvis", "seed": 1, "fix_size": True},
        "note": "a cup of tea",
        "epoch": 2,
        "frequencies": ["r", "c", "f"],
    }
    make_checkpoint(path, **entries)
    write_log(run, {"epoch": 1, "metrics": {"AP": 0.1}}, {"epoch": 2, "metrics": METRICS})
    return path


def test_the_folder_holds_the_evaluated_weights_and_predicts_the_same(trained, tmp_path, capsys):
    assert publish(trained, "--output", tmp_path / "cups", *ALL_FACTS) == 0
    assert "the card states no" not in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "cups").iterdir()} == {WEIGHTS, CONTENT, "README.md"}
    content = read_content(tmp_path / "cups")
    original = read_checkpoint(trained)
    for name, tensor in original.evaluated_weights.items():
        assert torch.equal(content["model"][name], tensor)
    assert not {"optimizer", "ema", "scheduler", "rng"} & content.keys()
    assert content["run"] == {"dataset_file": "lvis", "seed": 1, "fix_size": True}
    assert (content["metrics"], content["data_license"]) == (METRICS, "CC-BY-4.0")
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    here, there = (load_predictor(p, device="cpu", score=0)(image) for p in (trained, tmp_path / "cups"))
    assert here.names == there.names and len(here) == 20
    assert np.array_equal(here.scores, there.scores) and np.array_equal(here.boxes_xyxy, there.boxes_xyxy)


def test_the_card_says_what_is_known(trained, tmp_path):
    publish(trained, "--output", tmp_path / "cups", *ALL_FACTS)
    front, text = card_of(tmp_path / "cups")
    assert front["license"] == "apache-2.0" and front["pipeline_tag"] == "object-detection"
    (index,) = front["model-index"]
    assert index["name"] == "cups"
    (result,) = index["results"]
    assert result["dataset"] == {"name": "Cups v2", "type": "cups-v2"}
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert found == {"AP": 31.42, "AP50": 50.0, "APr": 10.0, "APf": 40.0}
    for words in (
        "3 classes (1 rare, 1 common, 1 frequent in the training data)",
        "| APr | 10.00 | box AP, rare classes |",
        "Undefined on these data: APc.",
        "licence of the data: CC-BY-4.0",
        "note: a cup of tea",
        "epochs: 2",
        "Rare classes are detected worse: APr 10.00, APf 40.00.",
        "hidden_dim = 32",
        'richsem("hf://OWNER/NAME")',
        "cup, plate, urn.",
    ):
        assert words in text, words
    assert "secret" not in text
    assert 'richsem("hf://somebody/cups")' in set_address(text, "somebody/cups")


def test_nothing_is_invented(tmp_path, capsys):
    path = make_checkpoint(tmp_path / "checkpoint.pth", image_counts=[], epoch=1)
    assert publish(path, "--output", tmp_path / "cups") == 0
    printed = capsys.readouterr().out
    for words in ("metrics: none", "--license", "--data_license", "--dataset"):
        assert words in printed
    front, text = card_of(tmp_path / "cups")
    assert "license" not in front and "model-index" not in front
    assert "No metrics were recorded for these weights." in text and "licence of the data: not stated" in text
    assert "3 classes. DINO" in text


def test_metrics_are_those_of_the_checkpoints_epoch_or_of_a_named_evaluation(trained, tmp_path, capsys):
    write_log(trained.parent, {"epoch": 1, "metrics": METRICS}, {"epoch": 2})
    publish(trained, "--output", tmp_path / "a")
    assert "has none of epoch 2" in capsys.readouterr().out and read_content(tmp_path / "a")["metrics"] == {}
    (tmp_path / "out/eval").mkdir(parents=True)
    with pytest.raises(UserError, match=r"out: has no eval/metrics\.json"):
        publish(trained, "--output", tmp_path / "b", "--eval", tmp_path / "out")
    (tmp_path / "out/eval/metrics.json").write_text(json.dumps(METRICS))
    publish(trained, "--output", tmp_path / "b", "--eval", tmp_path / "out")
    assert read_content(tmp_path / "b")["metrics"] == METRICS


def test_no_folder_of_this_machine_is_told(tmp_path):
    config = Config.from_dict(
        {
            **TINY,
            "text_cache_dir": "/home/me/cache",
            "imagenet_path": "/home/me/images",
            "clip_pretrained": "C:\\Users\\me\\tower.pt",
            "clip_model": "config/quickstart/mini_clip.json",
        }
    )
    values = portable_config(config)
    assert not re.search("home|Users", json.dumps(values))
    assert values["imagenet_path"] == "images" and values["text_cache_dir"] == ""
    assert values["clip_pretrained"] == "tower.pt"
    assert values["clip_model"] == "config/quickstart/mini_clip.json"
    assert Config.from_dict(values).hidden_dim == config.hidden_dim


def test_an_official_file_gets_its_class_names_from_the_annotations(tmp_path):
    clip = Clip(openai_clip(), tokenizer())
    config = tiny_config(backbone_weights="default", text_cache_dir=str(tmp_path / "text"))
    names = ["none", "cup", "plate", "none", "urn"]
    torch.manual_seed(0)
    text = encode_vocabulary(clip, names, config.text_cache_dir, unused=(0, 3))
    state = build_richsem(config, text, timm_backbone(config, load=False)).state_dict()
    arguments = {**config.to_dict(), "num_classes": len(names)}
    path = write(tmp_path / "official.pth", official_state(state, 2, clip.model), **arguments)
    with pytest.raises(
        UserError, match="an official checkpoint has no class names; name an LVIS annotation file"
    ):
        publish(path, "--output", tmp_path / "cups")
    categories = [
        {"id": i, "name": name, "frequency": "r", "image_count": i}
        for i, name in enumerate(names)
        if name != "none"
    ]
    (tmp_path / "lvis.json").write_text(json.dumps({"categories": categories}))
    publish(path, "--output", tmp_path / "cups", "--annotations", tmp_path / "lvis.json")
    content = read_content(tmp_path / "cups")
    assert content["class_names"] == ["", "cup", "plate", "", "urn"]
    assert content["image_counts"] == [0, 1, 2, 0, 4] and content["frequencies"] == ["", "r", "r", "", "r"]
    assert not [name for name in content["model"] if ".clip." in name]
    _, text = card_of(tmp_path / "cups")
    assert "3 classes" in text and "those of the official release, converted" in text
    models = []
    for which in (path, tmp_path / "cups"):
        opened = open_checkpoint(which)
        by_id = {c["id"]: c["name"] for c in categories}
        models.append(load_trained(opened, checkpoint_config(opened), by_id))
    assert models[1].postprocess.unused == (0, 3)
    first, second = (m.postprocess(m.model(make_images()), [(64, 96), (80, 64)])[0] for m in models)
    assert torch.equal(first.scores, second.scores) and torch.equal(first.boxes_xyxy, second.boxes_xyxy)
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize(
    ("weights", "line", "sentence"),
    [
        ("openai", "", "with the weights `openai`.\n"),
        ("config/quickstart/mini_clip.safetensors", "", "That is a file of RichSem's checkout."),
        (
            "/home/me/tower.pt",
            "need the text tower /home/me/tower.pt, which is not",
            "of its author, not among",
        ),
    ],
)
def test_it_says_what_new_words_need(weights, line, sentence):
    config = tiny_config(clip_pretrained=weights)
    (said,) = missing_facts(Namespace(license="a", data_license="b", dataset="c"), config) or [""]
    assert line in said and bool(line) == bool(said)
    own = Config.from_dict(portable_config(config))
    known = {"class_names": NAMES, "frequencies": [], "image_counts": [], "metrics": {}, "parameters": 1}
    given = {"dataset": "", "license": "", "data_license": "", "note": "", "epoch": 0, "official": False}
    card = model_card(Facts(name="cups", config=own, **known, **given))
    assert sentence in card and "/home/me" not in card


def test_it_evaluates_to_the_same_digits(tmp_path, capsys):
    data = write_all(tmp_path / "data")
    names = [
        c["name"]
        for c in json.loads((data / "lvis_v1/annotations/lvis_v1_val.json").read_text())["categories"]
    ]
    path = make_checkpoint(tmp_path / "checkpoint.pth", class_names=[*names, *NAMES][:3], image_counts=[])
    publish(path, "--output", tmp_path / "cups")
    results = []
    for which in (path, tmp_path / "cups"):
        words = [
            "--eval",
            "--resume",
            which,
            "--data_path",
            data,
            "--output_dir",
            tmp_path / f"of_{which.name}",
        ]
        assert program.main([*map(str, words), "--device", "cpu", "--num_workers", "0"]) == 0
        folder = tmp_path / f"of_{which.name}" / "eval"
        results.append(((folder / "metrics.json").read_bytes(), (folder / "predictions.npy").read_bytes()))
    assert results[0] == results[1]
    capsys.readouterr()
    assert program.main(["--eval", "--resume", str(tmp_path / "cups"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == "error: no data: name its folder with --data_path\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "full"], "full: is not empty; name a new folder with --output"),
        ([], "nothing to do: name a folder with --output"),
        (["--push", "cups"], "--push cups: the form is OWNER/NAME"),
        (["--push", "a/cups"], "is no published folder; make one with --output FOLDER"),
        (["--output", "new", "--annotations", "other.json"], "no category is a class of the model"),
        (["--output", "new", "--annotations", "empty.json"], "empty.json: has no `categories`"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "other.json").write_text('{"categories": [{"id": 1, "name": "boat"}]}')
    (tmp_path / "empty.json").write_text("{}")
    path = make_checkpoint(tmp_path / "checkpoint.pth")
    with pytest.raises(UserError) as caught:
        publish(path, *words)
    assert message in str(caught.value) and not (tmp_path / "new").exists()


def test_weights_that_are_not_finite_are_not_published(tmp_path):
    path = make_checkpoint(tmp_path / "checkpoint.pth")
    state = dict(read_checkpoint(path).model)
    state["decoder.norm.weight"] = state["decoder.norm.weight"] * float("nan")
    make_checkpoint(path, model=state)
    with pytest.raises(UserError, match=r"values that are not finite, in 'decoder\.norm\.weight'"):
        publish(path, "--output", tmp_path / "cups")


def test_pushing_without_a_token_says_how_to_log_in(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    publish(trained, "--output", tmp_path / "cups")
    with pytest.raises(UserError, match="hf://somebody/cups: you are not logged in: run `hf auth login`"):
        publish(tmp_path / "cups", "--push", "somebody/cups")
