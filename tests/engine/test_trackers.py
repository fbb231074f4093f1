"""Trackers behind their interface. What the real libraries do is in test_real_trackers."""

import sys

import pytest
import torch

from engine import trackers
from engine.fit import Validation, fit
from engine.run_directory import RunDirectory
from engine.run_log import RunLog
from engine.trackers import Trackers, import_trackers, open_trackers
from engine.train_epoch import train_one_epoch
from tests.engine.toys import ToyEvaluator, ToyLoader, make_toy, toy_images, toy_postprocess
from util.errors import UserError


class Recorder:
    def __init__(self, folder=None, settings=None, fails: str = "") -> None:
        self.settings, self.fails = settings, fails
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.ended: bool | None = None
        torch.rand(3)

    def log(self, numbers: dict[str, float], step: int) -> None:
        if self.fails == "log":
            raise ConnectionError("the server is away\nfor long")
        self.rows.append((step, numbers))

    def finish(self, failed: bool) -> None:
        if self.fails == "finish":
            raise OSError
        self.ended = failed


def test_trackers_get_losses_rates_and_metrics(tmp_path):
    recorder = Recorder()
    toy = make_toy(ToyLoader(toy_images(4), 2), log_interval=1)
    with RunLog(tmp_path / "log.jsonl", trackers=Trackers({"recorder": recorder})) as log:
        train_one_epoch(toy.task, toy.state, toy.loader, toy.settings, log)
        entry = {"epoch": 1, "step": 2, "total": float("nan"), "losses": {"loss_ce": 0.5}}
        log.epoch({**entry, "metrics": {"AP": 0.25}})
        log.epoch({**entry, "metrics": None})
    assert [step for step, _ in recorder.rows] == [1, 2, 2, 2, 2]
    train = {"train/total", "train/loss_bbox", "train/lr", "train/grad_norm", "epoch"}
    assert [set(numbers) for _, numbers in recorder.rows[:2]] == [train, train]
    epoch = {"epoch/loss_ce": 0.5, "epoch": 1}
    rows = [numbers for _, numbers in recorder.rows[2:]]
    assert rows == [epoch, {"val/AP": 0.25, "epoch": 1}, epoch], "nan is left out"
    assert recorder.ended is False


def test_a_run_that_fails_ends_as_failed(tmp_path):
    recorder = Recorder()
    with (
        pytest.raises(KeyboardInterrupt),
        RunLog(tmp_path / "log.jsonl", trackers=Trackers({"recorder": recorder})),
    ):
        raise KeyboardInterrupt
    assert recorder.ended is True


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_a_tracker_that_fails_says_so_once_and_the_others_go_on(caplog, fails):
    bad, good = Recorder(fails=fails), Recorder()
    both = Trackers({"bad": bad, "good": good})
    for step in range(3):
        both.log("train", {"total": 1.0}, step, 1)
    both.finish()
    assert len(good.rows) == 3 and good.ended is False
    (message,) = caplog.messages
    assert message.startswith("tracker bad failed and is switched off; training goes on: ")
    assert "\n" not in message and message.endswith("the server is away" if fails == "log" else "OSError")


def test_fit_opens_what_the_config_names(tmp_path, monkeypatch, caplog):
    opened = []

    def kind(folder, settings) -> Recorder:
        opened.append(Recorder(folder, settings))
        return opened[-1]

    def broken(folder, settings) -> Recorder:
        raise RuntimeError("no space left")

    monkeypatch.setattr(trackers, "_KINDS", {"sys": kind, "json": broken})
    toy = make_toy(ToyLoader(toy_images(4), 2), epochs=1)
    settings = toy.settings.__class__(**{**vars(toy.settings), "trackers": ("sys", "json")})
    validation = Validation(ToyLoader(toy_images(2), 1), toy_postprocess, ToyEvaluator)
    identity = {"config": {"lr": 0.5}, "run": {"seed": 7, "data_path": "/home/me"}}
    fit(toy.task, toy.state, toy.loader, validation, settings, RunDirectory(tmp_path), identity)
    assert opened[0].settings == {"lr": 0.5, "seed": 7}
    assert opened[0].ended is False and any("val/AP" in numbers for _, numbers in opened[0].rows)
    assert "tracker json failed and is switched off; training goes on: no space left" in caplog.text


def test_training_does_not_see_that_a_tracker_draws_random_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "_KINDS", {"sys": Recorder})
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert open_trackers(["sys"], tmp_path, {}).opened
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_is_named_with_the_pip_line(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    line = rf"{name} is not installed: pip install -r requirements/trackers\.txt"
    with pytest.raises(UserError, match=line):
        import_trackers([name], tmp_path)


def test_without_a_choice_tensorboard_is_used_where_it_is_installed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert not open_trackers((), tmp_path, {}).opened
    assert not open_trackers(("none",), tmp_path, {}).opened
    assert not caplog.messages and not list(tmp_path.iterdir())


def test_wandb_is_online_only_with_a_login(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    assert not trackers._has_wandb_login()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert trackers._has_wandb_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not trackers._has_wandb_login()


def test_the_run_has_one_name_for_good(tmp_path):
    first, second = (trackers._run_id(tmp_path) for _ in range(2))
    assert first == second and len(first) == 12
    (tmp_path / "other").mkdir()
    assert trackers._run_id(tmp_path / "other") != first
