"""Evaluation on two ranks gives the bits of one, with the real detector, data and evaluator."""

import json
from pathlib import Path

import numpy as np
import torch

import main as program
from config import Config, parse_options
from datasets.build import RunSettings, build_datasets
from engine.build import build_settings
from engine.evaluate import evaluate, report_metrics
from engine.random_state import seed_everything
from models.richsem.build import build_model
from tests.datasets.sets import coco, write_coco
from tests.datasets.tiny import write_all
from tests.processes import run_on_ranks
from tests.test_cli import TINY
from util import distributed

# Five images: one rank has three, the other two.
IMAGES = 5


def evaluate_random_models(folder: str, cases: dict[str, tuple[str | list[str], list[str]]]) -> None:
    """Evaluates a random model for each case: name -> data and options."""
    # One rank would get all cores, and sums in another order.
    torch.set_num_threads(1)
    for name, (data, options) in cases.items():
        evaluate_random_model(str(Path(folder) / name), data, options)


def evaluate_random_model(folder: str, data: str | list[str], options: list[str]) -> None:
    """Writes the metrics of a random model, the same on every rank, below `folder`."""
    seed_everything(0, 0)
    config = Config.from_dict({**TINY, "eval_batch_size": 1} | parse_options(options))
    run = RunSettings(data, rank=distributed.rank(), world_size=distributed.world_size())
    parts = build_datasets(config, run, train=False)
    device = torch.device("cpu")
    built = build_model(config, parts.classes.names, parts.classes.image_counts, device, training=False)
    found = program.make_evaluator(config, parts, parts.classes, Path(folder))
    settings = build_settings(config, device)
    metrics = evaluate(built.model, parts.val_loader, built.postprocess, found, settings)
    if metrics is not None:
        report_metrics(metrics, Path(folder) / "eval" / "metrics.json")


def test_two_ranks_evaluate_as_one(tmp_path):
    data = write_all(tmp_path / "data", val=IMAGES)
    for split in ("train", "val"):
        write_coco(tmp_path / "pets", split, coco(["cat", "red_square"], [["cat"], ["red_square", "cat"]]))
    cases = {
        "one": (str(data), ["fixed_ap=True"]),
        "several": ([str(data), str(tmp_path / "pets")], ["use_imagenet=False"]),
    }
    files = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        run_on_ranks(ranks, evaluate_random_models, str(folder), cases)
        for name in cases:
            found = {path.name: path.read_bytes() for path in (folder / name / "eval").iterdir()}
            files[name, ranks] = found
    usual = {"dataset.json", "predictions.npy", "metrics.json", "result.json"}
    assert files["one", 1] == files["one", 2] and set(files["one", 1]) == usual
    assert "FixedAP" in json.loads(files["one", 1]["metrics.json"])
    # Ten queries and three classes; `num_select` alone would keep 20.
    assert len(np.load(tmp_path / "1" / "one" / "eval" / "predictions.npy")) == IMAGES * 30
    assert files["several", 1] == files["several", 2]
    assert set(files["several", 1]) == usual | {"result_data.json", "result_pets.json"}
