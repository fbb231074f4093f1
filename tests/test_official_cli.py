"""A checkpoint of the official release on the command line: evaluated, and as a start for other classes."""

import argparse
import importlib.util
import json
from pathlib import Path

import pytest
import torch

import main as program
from config import load
from datasets.evaluation.lvis import METRICS
from tests.checkpoints import read_checkpoint
from tests.datasets.tiny import write_all
from tests.fixtures import require_fixture
from tests.source_files import ROOT

COLUMNS = 1204
SMALL = ("data_aug_scales=[64]", "data_aug_max_size=96", "num_queries=100")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The baseline with synthetic weights, as the release saves it."""
    manifest = json.loads(require_fixture("parity/dino_r50.manifest.json").read_text())
    case = json.loads(require_fixture("parity/dino_r50.json").read_text())
    spec = importlib.util.spec_from_file_location("synth", require_fixture("parity/synth.py"))
    synth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synth)
    options = load(ROOT / case["config"], case["overrides"]).to_dict() | {"num_classes": COLUMNS}
    arguments = argparse.Namespace(**options, data_path="elsewhere", eval=False, gpu=0, local_rank=0)
    path = tmp_path_factory.mktemp("official") / "checkpoint.pth"
    weights = {name: tensor.float() for name, tensor in synth.synth_state_dict(manifest).items()}
    torch.save({"model": weights, "args": arguments, "epoch": 11}, path)
    return path


@pytest.fixture(scope="module")
def lvis_like(tmp_path_factory) -> Path:
    """Three classes that occur, and LVIS's ids up to 1203 that do not."""
    folder = write_all(tmp_path_factory.mktemp("data"))
    for split in ("train", "val"):
        path = folder / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
        content = json.loads(path.read_text())
        known = {c["id"]: c for c in content["categories"]}
        blank = {"synset": "", "synonyms": [], "frequency": "f", "image_count": 200}
        content["categories"] = [
            known.get(i, {"id": i, "name": f"class {i}", **blank}) for i in range(1, COLUMNS)
        ]
        path.write_text(json.dumps(content))
    return folder


def run(*words) -> int:
    return program.main([str(word) for word in words] + ["--device", "cpu", "--num_workers", "0"])


def test_it_is_evaluated_as_it_is(checkpoint, lvis_like, tmp_path, capsys):
    words = ("--eval", "--resume", checkpoint, "--data_path", lvis_like, "--output_dir", tmp_path)
    assert run(*words, "--save_results", "--options", *SMALL) == 0
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()[0] in METRICS]
    assert printed == list(METRICS)
    predictions = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    # Column 0 is no class: ids start at 1, and there are as many detections as without it.
    assert min(p["category_id"] for p in predictions) >= 1
    assert len(predictions) == 5 * 300


def test_data_with_other_ids_than_the_columns_is_named(checkpoint, lvis_like, tmp_path, capsys):
    folder = write_all(tmp_path / "data")
    path = folder / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    path.write_text(
        path.read_text()
        .replace('"id": 5,', '"id": 5000,')
        .replace('"category_id": 5,', '"category_id": 5000,')
    )
    assert run("--eval", "--resume", checkpoint, "--data_path", folder) == 2
    assert "5000" in capsys.readouterr().err


def test_training_starts_from_it_with_other_classes(checkpoint, tmp_path, capsys):
    data, out = write_all(tmp_path / "data"), tmp_path / "run"
    words = ("--pretrain_model_path", checkpoint, "--data_path", data, "--output_dir", out, "--debug")
    small = (*SMALL, "data_aug_scales2_resize=[64]", "data_aug_scales2_crop=[48,64]", "batch_size=4")
    run_options = ("epochs=1", "lr=0", "lr_backbone=0", "backbone_weights=none", "use_imagenet=False")
    config = ROOT / "config" / "RichSem" / "baseline_4scale.py"
    linear = ("enc_cls_agn=True", "use_dn=False")
    assert run("-c", config, *words, "--options", *small, *run_options, *linear) == 0
    content = read_checkpoint(out / "checkpoint.pth")
    assert content.class_names == ["red_square", "green_square", "blue_square"]
    source = torch.load(checkpoint, weights_only=False)["model"]
    taken = content.model["encoder.layers.0.ffn.linear1.weight"]
    assert torch.equal(taken, source["transformer.encoder.layers.0.linear1.weight"])
    assert content.model["head.classifier.weight"].shape[0] == 3


def test_it_is_not_resumed(checkpoint, lvis_like, tmp_path, capsys):
    assert run("--resume", checkpoint, "--data_path", lvis_like, "--output_dir", tmp_path / "run") == 2
    assert "--pretrain_model_path" in capsys.readouterr().err
