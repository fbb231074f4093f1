"""The real libraries, from the checkout, beside Hugging Face's `datasets`, without network and login."""

import importlib.metadata
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.datasets.tiny import write_all
from tests.source_files import ROOT
from tests.test_cli import TINY

pytestmark = pytest.mark.ci

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")
# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a config and its data."""
    for name in NAMES:
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("tiny")
    config = {**TINY, "log_interval": 1, "use_imagenet": False}
    (folder / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in config.items()))
    write_all(folder / "data")
    return folder


def train(tiny: Path, *words: str, epochs: int = 1, trackers: str = ",".join(NAMES), **variables: str) -> str:
    """Runs main.py as a user does, in a home of its own, and returns what it says."""
    ours = ("WANDB_", "MLFLOW_", "TRACKIO_", "HF_", "NETRC")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    (tiny / "home").mkdir(exist_ok=True)
    environment |= {"HOME": f"{tiny / 'home'}", "HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, **variables}
    given = ["-c", f"{tiny / 'tiny.py'}", "--data_path", f"{tiny / 'data'}", "--device", "cpu"]
    options = ["--options", f"tracker={trackers}", f"epochs={epochs}"]
    done = subprocess.run(
        [sys.executable, "main.py", *given, "--num_workers", "0", *words, *options],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(tiny) -> Path:
    """The folder of a run with every tracker, resumed once."""
    assert importlib.metadata.version("datasets"), "Hugging Face's, which our package of that name hides"
    run = tiny / "run"
    first = train(tiny, "--output_dir", f"{run}")
    second = train(tiny, "--output_dir", f"{run}", "--resume", f"{run / 'checkpoint.pth'}", epochs=2)
    for said in (first, second):
        assert "switched off" not in said and "Traceback" not in said, said
    return run


def test_tensorboard(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert len(events.Scalars("val/AP")) == 2
    assert len(events.Scalars("train/loss_bbox")) == len(events.Scalars("train/lr")) >= 2


def test_wandb(finished):
    name = (finished / "tracker_id.txt").read_text().strip()
    runs = sorted((finished / "wandb").glob("offline-run-*"))
    assert [run.name.rpartition("-")[2] for run in runs] == [name, name]
    for run in runs:
        content = (run / f"run-{name}.wandb").read_bytes()
        assert b"val/AP" in content and b"train/loss_bbox" in content and b"hidden_dim" in content


def test_mlflow(finished):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "richsem"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["hidden_dim"] == "32" and run.data.params["seed"] == "42"
    history = client.get_metric_history(run.info.run_id, "val/AP")
    steps = [metric.step for metric in history]
    assert len(steps) == 2 and steps[1] == 2 * steps[0]
    assert "val/AR_300" in run.data.metrics


def test_trackio(finished):
    (database,) = (finished / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, metrics from metrics").fetchall()
    name = (finished / "tracker_id.txt").read_text().strip()
    assert {row[0] for row in rows} == {f"run-{name}"}
    assert sum(b"val/AP" in row[1] for row in rows) == 2


def test_servers_that_do_not_answer_hold_nothing_up(tiny):
    online = {"WANDB_MODE": "online", "WANDB_API_KEY": 40 * "a", "WANDB_BASE_URL": NOWHERE}
    started = time.monotonic()
    said = train(
        *(tiny, "--output_dir", f"{tiny / 'away'}"),
        trackers="wandb,mlflow",
        MLFLOW_TRACKING_URI=NOWHERE,
        **online,
    )
    assert time.monotonic() - started < 200
    lines = said.splitlines()
    assert sum("tracker mlflow failed and is switched off" in line for line in lines) == 1
    assert sum("tracker wandb failed and is switched off" in line for line in lines) == 1
    assert (tiny / "away" / "checkpoint.pth").is_file()


def test_wandb_without_a_login_asks_nothing(tiny):
    said = train(tiny, "--output_dir", f"{tiny / 'asked'}", trackers="wandb", WANDB_MODE="online")
    assert "WANDB_MODE=online without a login (wandb login): working offline" in said
    assert list((tiny / "asked" / "wandb").glob("offline-run-*"))
