"""Losses that are not finite: named, kept, and stopped at, skipped or left out from a checkpoint on."""

import pytest
import torch

from engine.fit import Validation, fit
from engine.nonfinite import MOST_ROLLBACKS, MOST_SKIPPED, read_batch
from engine.run_directory import RunDirectory
from engine.run_log import read_log
from tests.checkpoints import read_checkpoint
from tests.engine.toys import ToyDetector, ToyEvaluator, ToyLoader, make_toy, toy_images, toy_postprocess
from util.errors import UserError

VALIDATION = Validation(ToyLoader(toy_images(5, seed=9), 1), toy_postprocess, ToyEvaluator)
# Batches of two: images 8 and 9, ids 108 and 109, are batch 5 of 7.
BAD = 9


def go(folder, bad=(BAD,), **changes) -> RunDirectory:
    images = toy_images(14)
    for index in bad:
        images[index][0].fill_(float("nan"))
    toy = make_toy(
        ToyLoader(images, 2),
        model=ToyDetector(),
        **{"epochs": 2, "tracker": ["none"], "log_interval": 7, **changes},
    )
    directory = RunDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fit(toy.task, toy.state, toy.loader, VALIDATION, toy.settings, directory, {})
    return directory


def kept(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.path.glob("nonfinite_*"))


def assert_finite(run: RunDirectory) -> None:
    content = read_checkpoint(run.latest)
    for weights in (content.model, content.ema["model"]):
        assert all(tensor.isfinite().all() for tensor in weights.values())
    for entry in read_log(run.log):
        assert entry["total"] > 0, entry


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_batch_is_named_and_kept(tmp_path, accumulate):
    with pytest.raises(UserError, match=r"epoch 1, iteration 5: .*images 108, 109") as caught:
        go(tmp_path, accumulate_steps=accumulate, log_interval=2)
    step = 5 if accumulate == 1 else 2
    file = tmp_path / f"nonfinite_step{step}.pt"
    assert f"python tools/replay_batch.py {file}" in str(caught.value) and "\n" not in str(caught.value)
    batch = read_batch(file)
    assert batch.targets.image_ids == (108, 109)
    assert batch.images.tensor[1].isnan().all() and batch.images.tensor[0].isfinite().all()
    assert batch.losses["total"] != batch.losses["total"]
    assert set(batch.rng) == {"torch", "cuda"} and "iteration 5" in batch.where
    assert not (tmp_path / "checkpoint.pth").exists()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_skip_leaves_out_the_step(tmp_path, caplog, accumulate):
    run = go(tmp_path, on_nonfinite="skip", accumulate_steps=accumulate, log_interval=2)
    assert_finite(run)
    content = read_checkpoint(run.latest)
    steps = 14 if accumulate == 1 else 6
    assert content.scheduler["position"] == steps
    assert content.ema["updates"] == steps - 2, "once an epoch"
    assert caplog.text.count("the step is left out, 1 in a row") == 2
    assert caplog.text.count("iteration 5: total, loss_bbox (box-annotated images 108, 109)") == 2
    assert len(kept(run)) == 2


def test_skip_is_bounded(tmp_path):
    with pytest.raises(UserError, match=f"{MOST_SKIPPED + 1} steps in a row were not finite"):
        go(tmp_path, bad=range(14), on_nonfinite="skip")


def test_rollback_goes_back_to_the_checkpoint_and_on_without_the_step(tmp_path, caplog):
    run = go(tmp_path, on_nonfinite="rollback", save_interval=3)
    assert_finite(run)
    assert [m.rsplit("; ", 1)[1] for m in caplog.messages] == [
        *("back to step 3, and on without it", "back to step 9, and on without it")
    ]
    places = [(e["kind"], e["epoch"]) for e in read_log(run.log)]
    assert places == [("step", 1), ("epoch", 1), ("step", 2), ("epoch", 2)], "each line once"
    content = read_checkpoint(run.latest)
    assert content.scheduler["position"] == 14 and content.ema["updates"] == 12
    assert kept(run) == ["nonfinite_step12.pt", "nonfinite_step5.pt"]


def test_rollback_is_bounded_and_needs_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="not finite in epoch 1, iteration 5"):
        go(tmp_path / "none", on_nonfinite="rollback", log_interval=1)
    bad = {"on_nonfinite": "rollback", "save_interval": 3, "log_interval": 1, "epochs": 4}
    with pytest.raises(UserError, match="not finite in epoch 3, iteration 6"):
        go(tmp_path / "many", bad=range(6, 14), **bad)
    assert len(kept(RunDirectory(tmp_path / "many"))) == MOST_ROLLBACKS + 1


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    """The losses of all batches are finite, the weights of the last step are not."""
    toy = make_toy(ToyLoader(toy_images(14), 2), model=ToyDetector(), epochs=1, tracker=["none"])
    step = toy.state.update_average

    def spoiled() -> None:
        step()
        if toy.state.step == 7:
            with torch.no_grad():
                toy.state.model.hint.fill_(float("nan"))

    toy.state.update_average = spoiled
    run = RunDirectory(tmp_path)
    with pytest.raises(UserError, match="weights are not finite, in 'hint'"):
        fit(toy.task, toy.state, toy.loader, VALIDATION, toy.settings, run, {})
    assert not run.latest.exists()


@pytest.mark.parametrize("content", [b"x", b""])
def test_files_that_are_no_batches_are_one_line(tmp_path, content):
    path = tmp_path / "nonfinite_step1.pt"
    with pytest.raises(UserError, match="no such file"):
        read_batch(path)
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_batch(path)
    assert "\n" not in str(caught.value)
    torch.save({"format": "other"}, path)
    with pytest.raises(UserError, match="is no batch that training has kept"):
        read_batch(path)


def skip_on_ranks(folder, **changes) -> list[str]:
    """Only one rank has the batch; called on every rank."""
    run = go(folder, on_nonfinite="skip", **changes)
    return [*kept(run), str(read_checkpoint(run.latest).ema["updates"])]
