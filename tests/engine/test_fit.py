import logging
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.early_stopping import EarlyStopping
from engine.evaluate import evaluate, metrics_table
from engine.fit import Validation, fit
from engine.random_state import load_random_state, random_state, seed_everything
from engine.run_directory import RunDirectory
from engine.run_log import read_log
from tests.checkpoints import assert_equal, entries, read_checkpoint
from tests.engine.toys import (
    Toy,
    ToyDetector,
    ToyEvaluator,
    ToyLoader,
    make_toy,
    toy_images,
    toy_postprocess,
)
from util.checkpoint import Checkpoint, read_content
from util.errors import UserError

IDENTITY = {"class_names": ["cat"], "config": {"epochs": 4}, "run": {"data_path": "d"}}
VALIDATION = Validation(ToyLoader(toy_images(5, seed=9), 1), toy_postprocess, ToyEvaluator)


def noisy_toy(**changes) -> Toy:
    """Dropout draws random numbers, batch norm keeps statistics, the order depends on the epoch."""
    loader = ToyLoader(toy_images(8), 2, shuffle=True)
    model = ToyDetector(dropout=0.5, norm=True)
    toy = make_toy(loader, teacher=True, model=model, **{"epochs": 4, "onecyclelr": True, **changes})
    seed_everything(5)
    return toy


def run(toy: Toy, folder, epochs: int | None = None) -> RunDirectory:
    """Trains up to `epochs` as an interrupted run would: the schedule is made for the whole."""
    directory = RunDirectory(folder)
    directory.path.mkdir(exist_ok=True)
    settings = replace(toy.settings, epochs=epochs or toy.settings.epochs)
    fit(toy.task, toy.state, toy.loader, VALIDATION, settings, directory, IDENTITY)
    return directory


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, precision):
    torch.manual_seed(1)
    amp = {"amp": precision != "float32", "amp_dtype": "float16"}
    torch.manual_seed(3)
    whole = run(noisy_toy(**amp), tmp_path / "whole")
    torch.manual_seed(3)
    part = run(noisy_toy(**amp), tmp_path / "part", epochs=2)
    torch.manual_seed(77)
    toy = noisy_toy(**amp)
    torch.rand(13)
    toy.state.restore(read_checkpoint(part.latest))
    assert toy.state.epoch == 2
    run(toy, tmp_path / "part")
    expected, found = read_checkpoint(whole.latest), read_checkpoint(part.latest)
    assert_equal(entries(expected), entries(found))
    assert found.epoch == 4
    logs = [
        [{k: v for k, v in e.items() if "seconds" not in k and k != "memory_bytes"} for e in read_log(d.log)]
        for d in (whole, part)
    ]
    assert logs[0] == logs[1]


def test_a_checkpoint_holds_what_it_promises(tmp_path):
    directory = run(noisy_toy(epochs=1), tmp_path / "run")
    content = read_checkpoint(directory.latest)
    assert set(read_content(directory.latest)) == {
        *(
            "format",
            "model",
            "optimizer",
            "scheduler",
            "scaler",
            "ema",
            "epoch",
            "iteration",
            "evaluated",
            "progress",
            "best_ap",
            "early_stopping",
            "rng",
        ),
        *("class_names", "image_counts", "frequencies", "config", "run", "note"),
    }
    assert content.epoch == 1 and len(content.rng) == 1
    assert set(content.optimizer) == {n for n, _ in ToyDetector(norm=True).named_parameters()}
    assert content.scheduler == {"position": 4, "steps_per_epoch": 4}


def test_best_and_latest(tmp_path):
    class Falling(ToyEvaluator):
        aps = iter((0.3, 0.5, 0.2, 0.1))

        def finish(self):
            return {"AP": next(self.aps)}

    toy = noisy_toy()
    directory = RunDirectory(tmp_path)
    validation = Validation(VALIDATION.loader, toy_postprocess, Falling)
    fit(toy.task, toy.state, toy.loader, validation, toy.settings, directory, IDENTITY)
    assert read_checkpoint(directory.best).epoch == 2
    assert read_checkpoint(directory.latest).epoch == 4
    assert read_checkpoint(directory.latest).best_ap == 0.5


def stop_early(folder, aps: list[float], resume_at: int = 0, **changes) -> RunDirectory:
    """Trains with these APs, interrupted and resumed after `resume_at` epochs where that is given."""
    left = iter(aps)

    class Given(ToyEvaluator):
        def finish(self):
            return {"AP": next(left)}

    validation = Validation(VALIDATION.loader, toy_postprocess, Given)
    directory = RunDirectory(folder)
    for end in [resume_at] * bool(resume_at) + [20]:
        toy = noisy_toy(**{"epochs": 20, "early_stop_patience": 2, **changes})
        if directory.latest.exists():
            toy.state.restore(read_checkpoint(directory.latest))
        settings = replace(toy.settings, epochs=end)
        fit(toy.task, toy.state, toy.loader, validation, settings, directory, IDENTITY)
    return directory


@pytest.mark.parametrize(
    ("aps", "changes", "last", "best"),
    [
        ([0.3, 0.5, 0.2, 0.5, 0.9], {"resume_at": 3}, 4, 2),
        ([0.3, 0.3004, 0.3008, 0.9], {"early_stop_min_delta": 0.1, "resume_at": 2}, 3, 3),
        ([0.3, 0.304, 0.308, 0.3, 0.2], {"early_stop_min_delta": 0.1}, 5, 3),
        ([0.3, 0.2, 0.1], {"eval_interval": 2, "save_checkpoint_interval": 4}, 6, 2),
        ([-1.0, 0.3, -1.0, 0.2, -1.0, 0.1], {}, 6, 2),
    ],
)
def test_early_stopping(tmp_path, caplog, aps, changes, last, best):
    caplog.set_level(logging.INFO, logger="engine")
    directory = stop_early(tmp_path, aps, **changes)
    assert read_checkpoint(directory.latest).epoch == last
    assert read_checkpoint(directory.best).epoch == best
    assert f"stopped early after epoch {last} of 20: AP last rose" in caplog.text


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path, caplog):
    aps = [0.5, 0.2, 0.2]
    directory = stop_early(tmp_path, aps)
    stop_early(tmp_path, [])
    assert "nothing to train: stopped early after epoch 3" in caplog.text
    stop_early(tmp_path, [0.6, 0.1, 0.1, 0.1], early_stop_patience=3)
    assert read_checkpoint(directory.latest).epoch == 7


def test_older_checkpoints_count_from_their_best_ap(tmp_path):
    directory = stop_early(tmp_path, [0.5, 0.2, 0.2])
    stopping = EarlyStopping(patience=2)
    stopping.restore({}, read_checkpoint(directory.latest).best_ap)
    stopping.add(0.4)
    assert (stopping.reference, stopping.stale, stopping.reached) == (0.5, 1, False)


def test_an_undefined_ap_is_no_number_and_no_checkpoint_is_the_best_by_it(tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO, logger="engine")
    directory = stop_early(tmp_path, [-1.0] * 20, resume_at=3)
    assert read_checkpoint(directory.latest).epoch == 20 and not directory.best.exists()
    assert read_checkpoint(directory.latest).best_ap is None
    assert caplog.text.count("AP is undefined, so no checkpoint is the best") == 20
    printed = capsys.readouterr().out + caplog.text
    assert "AP".ljust(8) + "-".rjust(9) in printed and "-100" not in printed and "(best AP -)" in printed


def test_checkpoints_that_took_an_undefined_ap_for_the_best_go_on_without(tmp_path):
    directory = stop_early(tmp_path, [0.5, 0.2, 0.2])
    old = entries(read_checkpoint(directory.latest))
    toy = noisy_toy(epochs=2)
    counted = {"reference": -1.0, "stale": 4}
    toy.state.restore(Checkpoint(**{**old, "best_ap": -1.0, "early_stopping": counted}))
    assert toy.state.best_ap is None and toy.state.early_stopping.state() == {"reference": None, "stale": 0}


@pytest.mark.parametrize(("steps", "epochs"), [(6, 2), (8, 2), (3, 1)])
def test_a_run_of_so_many_steps(tmp_path, steps, epochs):
    toy = noisy_toy(max_steps=steps, onecyclelr=False, cosine_lr=True, cosine_final=0.05, eval_interval=9)
    directory = run(toy, tmp_path)
    entries = read_log(directory.log)
    last = [e for e in entries if e["kind"] == "epoch"][-1]
    assert (last["step"], last["epoch"]) == (steps, epochs) and last["metrics"] is not None
    # The schedule ends with the run.
    assert toy.state.schedule.get_last_lr()[-1] == pytest.approx(0.05 * toy.state.schedule.base_lrs[-1])


def test_intervals_of_evaluation_and_saving(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "engine.saving.CheckpointWriter.save",
        lambda writer, content, latest, best: saved.append([content.epoch, content.evaluated]),
    )
    toy = noisy_toy(epochs=5, eval_interval=2, save_checkpoint_interval=3)
    directory = run(toy, tmp_path / "run")
    entries = [e for e in read_log(directory.log) if e["kind"] == "epoch"]
    assert [e["metrics"] is not None for e in entries] == [False, True, False, True, True]
    around = [[epoch, evaluated] for epoch in (2, 4, 5) for evaluated in (False, True)]
    assert saved == [*around[:2], [3, True], *around[2:]], "by interval, and around every evaluation"


def test_the_epoch_entry_has_losses_and_metrics(tmp_path, capsys):
    directory = run(noisy_toy(epochs=1), tmp_path / "run")
    entry = read_log(directory.log)[-1]
    assert entry["kind"] == "epoch" and entry["epoch"] == 1 and entry["step"] == 4
    assert set(entry["losses"]) == {"loss_bbox", "loss_distill"}
    assert entry["total"] > 0
    assert 0 < entry["metrics"]["AP"] < 1 and entry["best_ap"] == entry["metrics"]["AP"]
    assert entry["train_seconds"] > 0 and entry["memory_bytes"] > 0
    assert f"{100 * entry['metrics']['AP']:.4f}" in capsys.readouterr().out


def test_the_table_of_a_checkpoint_equals_the_end_of_training(tmp_path, capsys):
    toy = noisy_toy(epochs=2)
    directory = run(toy, tmp_path / "run")
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("AP ")]
    content = read_checkpoint(directory.latest)
    model = ToyDetector(dropout=0.5, norm=True)
    model.load_state_dict(content.ema["model"])
    metrics = evaluate(model, VALIDATION.loader, toy_postprocess, ToyEvaluator(), toy.settings)
    assert metrics_table(metrics).splitlines()[0] == printed[-1]
    model.load_state_dict(content.model)
    raw = evaluate(model, VALIDATION.loader, toy_postprocess, ToyEvaluator(), toy.settings)
    assert raw != metrics


def test_metrics_table():
    lines = metrics_table({"AP50": 0.123456789, "APs": -1.0, "AP": 1.0}).splitlines()
    assert [line.split()[0] for line in lines] == ["AP50", "APs", "AP"], "the evaluator's order"
    assert re.fullmatch(r"AP50 +12\.3457", lines[0])
    assert lines[1].split() == ["APs", "-"] and len(lines[1]) == len(lines[0])
    assert metrics_table({"AP": 1.0}) == "AP       100.0000"


def test_evaluation_tracks_no_gradient_and_uses_evaluation_mode():
    toy = noisy_toy()
    model = toy.state.model.train()
    first, second = (
        evaluate(model, VALIDATION.loader, toy_postprocess, ToyEvaluator(), toy.settings) for _ in range(2)
    )
    assert first == second
    assert not model.training
    assert model.calls == 0


def test_training_state_refuses_bare_weights(tmp_path):
    toy = noisy_toy()
    with pytest.raises(UserError, match=r"no optimizer state.*--pretrain_model_path"):
        toy.state.restore(Checkpoint(model=toy.state.model.state_dict()))


def test_random_state_of_every_generator_comes_back(tmp_path):
    def draw():
        numbers = np.random.rand(), np.random.randn()  # noqa: NPY002 - the global generator is the point
        return random.random(), torch.rand(1).item(), *numbers

    seed_everything(3, rank=1)
    draw()
    torch.save(random_state(), tmp_path / "rng.pth")
    expected = draw()
    seed_everything(9)
    load_random_state(torch.load(tmp_path / "rng.pth", weights_only=True))
    assert draw() == expected


def test_a_finished_run_says_so(tmp_path, caplog):
    toy = noisy_toy(epochs=1)
    directory = run(toy, tmp_path / "run")
    before = directory.latest.read_bytes()
    run(toy, tmp_path / "run")
    assert "nothing to train: 1 of 1 epochs are done" in caplog.text
    assert directory.latest.read_bytes() == before
