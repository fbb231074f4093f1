"""What holds over several processes. One function does it all: starting ranks is the dear part."""

from pathlib import Path

import pytest
import torch

from engine.fit import Validation, fit
from engine.optimizer import optimizer_state
from engine.run_directory import RunDirectory
from engine.train_epoch import train_one_epoch
from tests.checkpoints import assert_equal, read_checkpoint
from tests.engine import test_nonfinite, test_resume, test_stopping
from tests.engine.toys import (
    ToyDetector,
    ToyEvaluator,
    ToyLoader,
    make_toy,
    toy_images,
    toy_postprocess,
)
from tests.processes import run_on_ranks
from util import distributed
from util.errors import UserError


def train(images, batch_size: int, epochs: int = 2, **changes) -> dict:
    toy = make_toy(ToyLoader(images, batch_size), teacher=True, epochs=epochs, **changes)
    losses = []
    for _ in range(epochs):
        losses.append(train_one_epoch(toy.task, toy.state, toy.loader, toy.settings))
        toy.state.finish_epoch()
    state = {name: value.tolist() for name, value in toy.state.model.state_dict().items() if name != "calls"}
    return {"losses": losses, "state": state, "steps": toy.state.step}


def mixed_images() -> list:
    """One image a rank: in the second and third step rank 1 has no box, rank 0 has."""
    images, empty = toy_images(8, boxes=3), toy_images(8, boxes=0)
    return [empty[i] if i in (3, 5) else images[i] for i in range(8)]


def not_finite() -> str:
    images = toy_images(8)
    images[5][0].fill_(float("inf"))
    try:
        train(images, 1)
    except UserError as error:
        return str(error)
    return "no error"


def resumed(folder: Path) -> dict:
    """Runs that were killed within epochs and went on; returns whether they equal those that were not."""
    same = {}
    for accumulate in (1, 2):
        # One log line an epoch: each rank's own losses are cut by the stop. Batch norm sees other images on
        # each rank: the buffers differ until they are shared.
        changes = {"log_interval": 3, "accumulate_steps": accumulate}
        whole = test_resume.go(folder / f"whole{accumulate}", changes)
        part = test_resume.stopped(folder / f"part{accumulate}", {**changes, "save_interval": 1}, 2, 3)
        if distributed.is_main():
            test_resume.assert_same_run(whole, part)
        rng = [len(read_checkpoint(run.latest).rng) for run in (whole, part)]
        same[accumulate] = rng == [2, 2]
    return same


SHARDED = {
    "plain": {},
    "accumulated, frozen": {"accumulate_steps": 2, "freeze": ["backbone"]},
    "nothing for one rank": {"freeze": ["backbone", "head"]},
    "float16": {"amp": True, "amp_dtype": "float16"},
}


def sharded(folder: Path) -> dict:
    """Runs that spread the optimizer's state over the ranks; returns whether they equal those that do not."""
    same = {}
    for case, changes in SHARDED.items():
        runs = [train(toy_images(8), 1, shard_optimizer=shard, **changes) for shard in (False, True)]
        same[case] = runs[0] == runs[1]
    changes = {"log_interval": 3, "save_interval": 1, "on_nonfinite": "skip"}
    whole = test_resume.go(folder / "whole", changes)
    # A run goes on with the key switched on, off and on again.
    for shard, batches in ((True, 2), (False, 2)):
        with pytest.raises(test_resume.Killed):
            test_resume.go(folder / "part", {**changes, "shard_optimizer": shard}, test_resume.after(batches))
    part = test_resume.go(folder / "part", {**changes, "shard_optimizer": True})
    if distributed.is_main():
        test_resume.assert_same_run(whole, part)
    skipped = [test_nonfinite.skip_on_ranks(folder / str(on), shard_optimizer=on) for on in (False, True)]
    same["skipped"] = skipped[0] == skipped[1]
    toy = make_toy(ToyLoader(toy_images(8), 1), shard_optimizer=True)
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    numbers = sum(state["exp_avg"].numel() for state in toy.state.optimizer.state.values())
    toy = make_toy(ToyLoader(toy_images(8), 1), shard_optimizer=True, freeze=["backbone", "head"])
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    gathered = list(optimizer_state(toy.state.optimizer, toy.state.model))
    same["one tensor"] = gathered == (["hint"] if distributed.is_main() else [])
    return {"same": same, "numbers": numbers}


def early_stop(folder: Path) -> int:
    """Epochs of a run whose AP never rises; rank 0 alone knows it."""

    class Constant(ToyEvaluator):
        def finish(self):
            return {"AP": 0.5} if distributed.is_main() else None

    toy = make_toy(ToyLoader(toy_images(4), 2), epochs=9, early_stop_patience=2)
    run = RunDirectory(folder / "stopped")
    distributed.on_main(lambda: run.open_for_training(None))
    validation = Validation(ToyLoader(toy_images(2, seed=3), 1), toy_postprocess, Constant)
    fit(toy.task, toy.state, toy.loader, validation, toy.settings, run, {})
    return toy.state.epoch


def on_two_ranks(folder: Path) -> dict:
    return {
        "plain": train(toy_images(8), 2),
        "accumulated": train(toy_images(8), 1, accumulate_steps=2),
        "mixed": train(mixed_images(), 1),
        "frozen": train(toy_images(8), 2, freeze=["backbone"]),
        "not_finite": not_finite(),
        "resume": resumed(folder),
        "stopped": early_stop(folder),
        "signals": test_stopping.stop_on_one_rank(folder / "signals"),
        "skipped": test_nonfinite.skip_on_ranks(folder / "skipped"),
        "sharded": sharded(folder / "sharded"),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def results(runs) -> list[dict]:
    return run_on_ranks(2, on_two_ranks, runs)


@pytest.mark.parametrize("case", ["plain", "accumulated", "mixed", "frozen"])
def test_two_ranks_equal_one_process(results, case):
    images = mixed_images() if case == "mixed" else toy_images(8)
    frozen = ["backbone"] if case == "frozen" else []
    expected = train(images, 2 if case == "mixed" else 4, freeze=frozen)
    for found in results:
        assert found[case]["steps"] == expected["steps"]
        for ours, theirs in zip(found[case]["losses"], expected["losses"], strict=True):
            for name in ("total", "loss_bbox", "loss_distill"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
        assert found[case]["state"] == results[0][case]["state"]


@pytest.mark.parametrize("case", ["plain", "accumulated", "mixed", "frozen"])
def test_two_ranks_end_with_the_weights_of_one_process(case, results):
    images = mixed_images() if case == "mixed" else toy_images(8)
    frozen = ["backbone"] if case == "frozen" else []
    expected = train(images, 2 if case == "mixed" else 4, freeze=frozen)["state"]
    for name, value in results[0][case]["state"].items():
        assert torch.allclose(torch.tensor(value), torch.tensor(expected[name]), atol=1e-4), name


def test_every_rank_reports_the_same_failure(results):
    first, second = (found["not_finite"] for found in results)
    assert first == second
    assert "iteration 3 on rank 1" in first and "images 105" in first


def test_all_ranks_stop_early_together(results):
    assert [found["stopped"] for found in results] == [3, 3]


def test_resume_on_two_ranks(results):
    assert [found["resume"] for found in results] == [{1: True, 2: True}] * 2


def test_ranks_stop_together_where_one_gets_a_signal(results):
    assert [found["signals"] for found in results] == [(2, 1)] * 2, "in a step, and in an evaluation"


def test_ranks_skip_together(results):
    assert [found["skipped"] for found in results] == [["nonfinite_step3.pt", "nonfinite_step6.pt", "4"]] * 2


def test_a_sharded_optimizer_trains_to_the_same_weights_with_half_the_state(results):
    assert all(all(found["sharded"]["same"].values()) for found in results), results[0]["sharded"]
    everything = sum(parameter.numel() for parameter in ToyDetector().parameters())
    assert [found["sharded"]["numbers"] for found in results] == [everything / 2] * 2


def test_a_checkpoint_of_a_sharded_run_goes_on_in_one_process(runs, results):
    saved = read_checkpoint(runs / "sharded" / "part" / "checkpoint.pth")
    toy = test_resume.make(shard_optimizer=True)
    assert type(toy.state.optimizer) is torch.optim.AdamW
    toy.state.restore(saved)
    assert_equal(saved.optimizer, optimizer_state(toy.state.optimizer, toy.state.model), "optimizer")


def resumed_on_three(folder: Path) -> bool:
    changes = {"log_interval": 3}
    whole = test_resume.go(folder / "whole", changes)
    part = test_resume.stopped(folder / "part", {**changes, "save_interval": 1}, 1, 1)
    if distributed.is_main():
        test_resume.assert_same_run(whole, part)
    return True


@pytest.mark.ci
def test_resume_where_the_order_of_a_sum_over_ranks_counts(tmp_path):
    assert run_on_ranks(3, resumed_on_three, tmp_path) == [True] * 3
