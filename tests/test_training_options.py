"""Config keys that change how `python main.py` trains, on the tiny data and model of test_cli."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

import main as program
from tests.datasets.tiny import write_all
from tests.source_files import ROOT
from tests.test_cli import TINY


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The command line of a training run on the CPU, without its folder and options."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    data = write_all(folder / "data")
    return ["-c", f"{folder / 'tiny.py'}", "--data_path", f"{data}", "--device", "cpu", "--num_workers", "0"]


def run(words: list[str], folder: Path, *options: str) -> int:
    return program.main([*words, "--output_dir", str(folder), "--options", *options])


def test_a_part_to_freeze_that_is_not_there_names_the_nearest(words, tmp_path, capsys):
    assert run(words, tmp_path / "run", "freeze=backbone,encoder.layer") == 2
    assert "Did you mean 'encoder.layers'" in capsys.readouterr().err


def test_a_dry_run_forecasts_and_leaves_nothing_behind(words, tmp_path, capsys):
    assert run(words, tmp_path / "run", "dry_run=True", "epochs=5", "eval_interval=2", "batch_size=2") == 0
    said = capsys.readouterr().out
    table = said[said.index("dry run: nothing was written") :].splitlines()
    assert [line[:16].strip() for line in table[1:]] == [
        *("training step", "worst batch", "evaluation step", "peak memory"),
        *("one epoch", "one evaluation", "in all"),
    ]
    assert "2 boxes in an image, 64x85 pixels" in table[2]
    assert float(re.search(r"([\d.]+) GiB resident", table[4])[1]) > 0.1
    assert "for 5 epochs and 3 evaluations" in table[7]
    assert not (tmp_path / "run").exists()


@pytest.mark.ci
def test_a_dry_run_of_a_resumed_run_forecasts_what_is_left_and_leaves_the_run_alone(words, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run([*words, "--debug"], folder, "epochs=1", "tracker=none") == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    resumed = [*words, "--resume", str(folder / "checkpoint.pth")]
    assert run(resumed, folder, "epochs=4", "dry_run=True") == 0
    assert "for 3 epochs and 3 evaluations" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    evaluation = ["--eval", *resumed]
    assert program.main([*evaluation, "--options", "dry_run=True"]) == 2
    assert "leave out --eval" in capsys.readouterr().err


@pytest.mark.ci
def test_two_processes_forecast_together(words, tmp_path):
    """They have different numbers of evaluation batches, so they must agree when to stop."""
    script = ["bash", str(ROOT / "scripts" / "richsem_dist.sh"), "2", *words, "--output_dir", "out"]
    done = subprocess.run(
        [*script, "--options", "dry_run=True", "batch_size=1", "eval_batch_size=1"],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dry run: nothing was written") == 1
    assert not (tmp_path / "out").exists()


def test_an_automatic_batch_size_is_a_number_from_then_on(words, tmp_path, capsys, monkeypatch):
    """The run is the one that this number would have given, and goes on with it."""
    # The trial's memory follows from nothing that a test could know.
    monkeypatch.setattr("engine.batch_size.MOST", 3)
    auto, three = tmp_path / "auto", tmp_path / "three"
    options = ("epochs=1", "tracker=none")
    assert run(words, auto, "batch_size=auto", *options) == 0
    said = (auto / "log.txt").read_text()
    assert "batch_size='auto' takes 3: forecast" in said and "3 images a step: the release has" in said
    assert run(words, three, "batch_size=3", *options) == 0
    first, second = (torch.load(folder / "checkpoint.pth", weights_only=True) for folder in (auto, three))
    assert first["config"]["batch_size"] == 3
    assert all(torch.equal(first["model"][name], value) for name, value in second["model"].items())
    again = [*words, "--resume", "auto"]
    assert run(again, auto, "batch_size=auto", "epochs=2", "tracker=none") == 0
    changed = [line for line in (auto / "log.txt").read_text().splitlines() if "changed since" in line]
    assert len(changed) == 1 and changed[0].endswith(": epochs 1 -> 2")
    monkeypatch.setattr("engine.batch_size.memory_at_hand", lambda *_: 2**20)
    assert run(words, tmp_path / "none", "batch_size=auto", *options) == 2
    assert "training on one image does not fit" in capsys.readouterr().err
