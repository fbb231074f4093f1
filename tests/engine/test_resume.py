"""A run that was stopped anywhere and goes on equals, bit for bit, the one that never stopped."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.fit import Validation, fit
from engine.random_state import seed_everything
from engine.run_directory import RunDirectory
from engine.run_log import RunLog, read_log
from engine.saving import Saver
from engine.stopping import Stopping
from tests.checkpoints import assert_equal, entries, read_checkpoint
from tests.engine.toys import (
    Toy,
    ToyCriterion,
    ToyDetector,
    ToyEvaluator,
    ToyLoader,
    make_toy,
    toy_images,
    toy_postprocess,
)
from util import distributed
from util.checkpoint import Checkpoint, save_checkpoint

# Seven batches an epoch: the last group of three is smaller, and lines come every two steps.
IMAGES, BATCH = 15, 2


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """It matters to a power failure, not to a stopped process."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Killed(Exception):  # noqa: N818 - it is no error
    """The process is gone."""


def make(**changes) -> Toy:
    """Dropout draws random numbers, batch norm keeps statistics, the order depends on the epoch."""
    loader = ToyLoader(toy_images(IMAGES), BATCH, shuffle=True)
    seed_everything(2)
    model = ToyDetector(dropout=0.5, norm=True)
    toy = make_toy(
        loader, teacher=True, model=model, **{"epochs": 2, "cosine_lr": True, "tracker": ["none"], **changes}
    )
    seed_everything(5, distributed.rank())
    return toy


def go(
    folder: Path,
    changes: dict,
    hook: Callable[[], None] | None = None,
    *,
    stopping: Stopping | None = None,
    status: int = 0,
    val_images: int = 5,
) -> RunDirectory:
    """Starts, or goes on where the folder's run stopped.

    hook: called in every forward pass of training.  status: the expected one.
    """
    toy = make(**changes)
    directory = RunDirectory(folder)
    if directory.latest.exists():
        torch.rand(random.randrange(1, 9))
        toy.state.restore(read_checkpoint(directory.latest))
    distributed.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    criterion = toy.task.criterion

    class Hooked(ToyCriterion):
        def __call__(self, *arguments):
            if hook is not None:
                hook()
            return criterion(*arguments)

    object.__setattr__(toy.task, "criterion", Hooked())
    validation = Validation(ToyLoader(toy_images(val_images, seed=9), 1), toy_postprocess, ToyEvaluator)
    identity = {"config": {"max_steps": changes.get("max_steps", 0)}}
    found = fit(toy.task, toy.state, toy.loader, validation, toy.settings, directory, identity, stopping)
    assert found == status
    return directory


def after(calls: int) -> Callable[[], None]:
    """A hook that kills at its call number `calls`."""
    left = iter(range(calls))

    def hook() -> None:
        if next(left, None) is None:
            raise Killed

    return hook


def stopped(folder: Path, changes: dict, *calls: int) -> RunDirectory:
    """Killed before each of these batches, counted from every start, and finished."""
    for number in calls:
        with pytest.raises(Killed):
            go(folder, changes, after(number))
    return go(folder, changes)


def log_of(run: RunDirectory) -> list[dict]:
    """Without times and memory."""
    return [
        {k: v for k, v in e.items() if "seconds" not in k and k != "memory_bytes"} for e in read_log(run.log)
    ]


def assert_same_run(whole: RunDirectory, other: RunDirectory) -> None:
    """All but Python's generator, from which the type checks of tests draw."""
    for name in ("latest", "best"):
        expected, found = (entries(read_checkpoint(getattr(run, name))) for run in (whole, other))
        for state in (*expected["rng"], *found["rng"]):
            del state["python"]
        assert_equal(expected, found, name)
    assert log_of(whole) == log_of(other)


CASES = {
    "plain": {},
    "accumulated": {"accumulate_steps": 3, "log_interval": 2},
    "bfloat16": {"amp": True, "amp_dtype": "bfloat16"},
    "float16": {"amp": True, "amp_dtype": "float16"},
    "frozen": {"freeze": ["backbone"]},
    "late average": {"ema_epoch": 1, "ema_warmup": True},
    "early stop": {"epochs": 9, "early_stop_patience": 1, "lr": 0.5},
    "so many steps": {"max_steps": 7, "accumulate_steps": 2, "eval_interval": 2},
    "rare evaluation": {"epochs": 3, "eval_interval": 2, "save_checkpoint_interval": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_within_epochs_equals_one_that_was_not(tmp_path, monkeypatch, case):
    monkeypatch.setattr("util.precision.cpu_has_bfloat16", lambda: True)
    whole = go(tmp_path / "whole", CASES[case])
    changes = {**CASES[case], "save_interval": 1}
    # After 4 batches, 3 more, and in the second epoch.
    assert_same_run(whole, stopped(tmp_path / "part", changes, 4, 3, 5))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_batch_is_a_place_to_stop(tmp_path, accumulate):
    changes = {"accumulate_steps": accumulate, "log_interval": 2 if accumulate == 1 else 1}
    whole = go(tmp_path / "whole", changes)
    for number in range(accumulate == 3, 14, 2):
        run = stopped(tmp_path / str(number), {**changes, "save_interval": 2}, number)
        assert_same_run(whole, run)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.ci)])
def test_every_write_is_a_place_to_stop(tmp_path, monkeypatch, every):
    """Before and after each checkpoint, log line and evaluation; the next command finishes the run."""
    changes = {"save_interval": 3, "eval_interval": 2, "epochs": 3}
    left = [10**9]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def around(function):
        def wrapped(*arguments, **named):
            count()
            result = function(*arguments, **named)
            count()
            return result

        return wrapped

    monkeypatch.setattr("engine.checkpoint_writer.save_checkpoint", around(save_checkpoint))
    monkeypatch.setattr(RunLog, "_append", around(RunLog._append))
    monkeypatch.setattr(ToyEvaluator, "finish", around(ToyEvaluator.finish))
    whole = go(tmp_path / "whole", changes)
    points = 10**9 - left[0]
    assert points > 40
    for point in range(0, points, every):
        folder = tmp_path / str(point)
        left[0] = point
        with pytest.raises(Killed):
            go(folder, changes)
        left[0] = 10**9
        run = RunDirectory(folder)
        if not run.latest.exists():
            run.log.unlink(missing_ok=True)
        assert_same_run(whole, go(folder, changes))


def test_a_stop_before_the_evaluation_is_made_good_by_it(tmp_path, caplog):
    caplog.set_level("INFO", logger="engine")

    class Failing(ToyEvaluator):
        def finish(self):
            raise Killed

    changes = {"epochs": 1}
    toy, directory = make(**changes), RunDirectory(tmp_path)
    validation = Validation(ToyLoader(toy_images(5, seed=9), 1), toy_postprocess, Failing)
    with pytest.raises(Killed):
        fit(toy.task, toy.state, toy.loader, validation, toy.settings, directory, {})
    content = read_checkpoint(directory.latest)
    assert (content.epoch, content.evaluated, content.best_ap) == (1, False, None)
    go(tmp_path, changes, after(0))
    assert read_checkpoint(directory.latest).evaluated
    assert [e["kind"] for e in read_log(directory.log)][-1] == "epoch"
    assert "its evaluation is still to be done" in caplog.text


@pytest.mark.parametrize("loss", ["missing", "older", "damaged"])
def test_a_best_checkpoint_that_is_lost_is_said_and_made_again(tmp_path, caplog, monkeypatch, loss):
    monkeypatch.setattr(ToyEvaluator, "finish", lambda self: {"AP": 0.5})
    directory = go(tmp_path, {"epochs": 1})
    if loss == "missing":
        directory.best.unlink()
    elif loss == "damaged":
        directory.best.unlink()  # it shares its bytes with the latest
        directory.best.write_bytes(b"x")
    else:
        old = entries(read_checkpoint(directory.best))
        save_checkpoint(directory.best, Checkpoint(**{**old, "best_ap": 0.4}))
    go(tmp_path, {"epochs": 2})
    assert "the next evaluation with an AP of at least 50.0000 replaces it" in caplog.text
    assert read_checkpoint(directory.best).epoch == 2
    assert len([m for m in caplog.messages if "replaces it" in m]) == 1
    go(tmp_path, {"epochs": 3})
    assert read_checkpoint(directory.best).epoch == 2, "an equal AP is not better"


@pytest.mark.parametrize(
    ("changes", "iteration", "step"),
    [
        # Seven batches of two images become three of four, or 15 of one; 4 of 7 are done.
        ({"batch": 4}, 2, 2),
        ({"batch": 1}, 9, 9),
        ({"batch": 1, "accumulate_steps": 3}, 9, 3),
        ({"accumulate_steps": 7}, 0, 0),
    ],
)
def test_other_batches_go_on_at_the_same_sample(tmp_path, caplog, changes, iteration, step):
    with pytest.raises(Killed):
        go(tmp_path, {"save_interval": 1}, after(4))
    checkpoint = read_checkpoint(RunDirectory(tmp_path).latest)
    assert (checkpoint.epoch, checkpoint.iteration) == (0, 4)
    changes = dict(changes)
    loader = ToyLoader(toy_images(IMAGES), changes.pop("batch", BATCH), shuffle=True)
    toy = make_toy(loader, teacher=True, model=ToyDetector(norm=True), **changes)
    toy.state.restore(checkpoint)
    assert (toy.state.epoch, toy.state.iteration, toy.state.step) == (0, iteration, step)
    toy.state.report_changes(checkpoint, {"batch_size": loader.batch_size})
    assert "no longer bit-identical" in caplog.text and "steps an epoch instead of 7" in caplog.text
    assert len(caplog.messages) == 1


def test_nothing_is_said_where_nothing_changed(tmp_path, caplog):
    with pytest.raises(Killed):
        go(tmp_path, {"save_interval": 1}, after(4))
    checkpoint = read_checkpoint(RunDirectory(tmp_path).latest)
    toy = make()
    toy.state.restore(checkpoint)
    toy.state.report_changes(checkpoint, {})
    assert toy.state.iteration == 4 and not caplog.messages


def test_checkpoints_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("engine.saving.time.monotonic", lambda: now[0])
    saved = []
    real = Saver.save

    def save(self, state, **named):
        saved.append((state.epoch, state.iteration))
        real(self, state, **named)

    monkeypatch.setattr(Saver, "save", save)

    def hook() -> None:
        now[0] += 20

    go(tmp_path, {"epochs": 1, "save_minutes": 1.0}, hook)
    assert saved == [(0, 3), (0, 6), (1, 0), (1, 0)]
