"""What holds over several processes. One function does it all: starting ranks is the dear part."""

from pathlib import Path

import pytest
import torch

from engine.fit import Validation, fit
from engine.random_state import seed_everything
from engine.run_directory import RunDirectory
from engine.run_log import read_log
from engine.train_epoch import train_one_epoch
from tests.checkpoints import read_checkpoint
from tests.engine.toys import ToyDetector, ToyEvaluator, ToyLoader, make_toy, toy_images, toy_postprocess
from tests.processes import run_on_ranks
from util import distributed
from util.errors import UserError


def train(images, batch_size: int, epochs: int = 2, **changes) -> dict:
    toy = make_toy(ToyLoader(images, batch_size), teacher=True, epochs=epochs, **changes)
    losses = []
    for _ in range(epochs):
        losses.append(train_one_epoch(toy.task, toy.state, toy.loader, toy.settings))
        toy.state.epoch += 1
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


def fit_with_resume(folder: Path) -> dict:
    """Two epochs at once, and one after the other; returns whether the checkpoints agree, and the log."""

    def once(name: str, epochs: int, resume: bool) -> None:
        seed_everything(0, distributed.rank())
        # Batch norm sees other images on each rank: the buffers differ until they are shared.
        model = ToyDetector(dropout=0.3, norm=True)
        toy = make_toy(ToyLoader(toy_images(8), 2, shuffle=True), model=model, epochs=epochs, cosine_lr=False)
        seed_everything(4, distributed.rank())
        run = RunDirectory(folder / name)
        if resume:
            toy.state.restore(read_checkpoint(run.latest))
        distributed.on_main(lambda: run.open_for_training(run.latest if resume else None))
        validation = Validation(ToyLoader(toy_images(4, seed=3), 1), toy_postprocess, ToyEvaluator)
        fit(toy.task, toy.state, toy.loader, validation, toy.settings, run, {})

    once("whole", 2, False)
    once("part", 1, False)
    once("part", 2, True)
    distributed.barrier()
    whole, part = (read_checkpoint(folder / name / "checkpoint.pth") for name in ("whole", "part"))
    return {
        "same": all(torch.equal(whole.model[k], part.model[k]) for k in whole.model),
        "rng": [torch.equal(a["torch"], b["torch"]) for a, b in zip(whole.rng, part.rng, strict=True)],
        "log": len(read_log(folder / "part" / "log.jsonl")),
    }


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
        "resume": fit_with_resume(folder),
        "stopped": early_stop(folder),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    return run_on_ranks(2, on_two_ranks, tmp_path_factory.mktemp("runs"))


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
    for found in results:
        assert found["resume"] == {"same": True, "rng": [True, True], "log": 4}
