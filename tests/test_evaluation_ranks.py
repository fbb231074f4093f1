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
from tests.datasets.tiny import write_all
from tests.processes import run_on_ranks
from tests.test_cli import TINY
from util import distributed

# Five images: one rank has three, the other two.
IMAGES = 5


def evaluate_random_model(folder: str, data: str, options: list[str]) -> None:
    """Writes the metrics of a random model, the same on every rank, below `folder`."""
    # One rank would get all cores, and sums in another order.
    torch.set_num_threads(1)
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
    files = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        run_on_ranks(ranks, evaluate_random_model, str(folder), str(data), ["fixed_ap=True"])
        files[ranks] = {path.name: path.read_bytes() for path in (folder / "eval").iterdir()}
    assert files[1] == files[2]
    assert set(files[1]) == {"dataset.json", "predictions.npy", "metrics.json", "result.json"}
    assert "FixedAP" in json.loads(files[1]["metrics.json"])
    # Ten queries and three classes; `num_select` alone would keep 20.
    assert len(np.load(tmp_path / "1" / "eval" / "predictions.npy")) == IMAGES * 30
