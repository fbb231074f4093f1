"""The same command twice: `--resume auto` from the command line to the weights."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engine.run_log import read_log
from tests.checkpoints import read_checkpoint
from tests.datasets.tiny import write_all
from tests.source_files import ROOT
from tests.test_cli import TINY, errors, run
from tests.util.test_lifetime import wait_until_gone


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The words of a training command, but for its folder."""
    folder = tmp_path_factory.mktemp("restart")
    config = folder / "tiny.py"
    config.write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    return ("-c", config, "--data_path", write_all(folder / "data"), "--resume", "auto")


def test_the_same_command_twice(command, tmp_path, capsys):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert run(*command, "--output_dir", whole) == 0
    # The first start with other epochs stands for a run that was stopped after the first.
    assert run(*command, "--output_dir", part, options=("epochs=1",)) == 0
    capsys.readouterr()
    assert run(*command, "--output_dir", part) == 0
    assert "changed since" in (printed := capsys.readouterr().out) and "epochs 1 -> 2\n" in printed
    expected, found = (read_checkpoint(folder / "checkpoint.pth") for folder in (whole, part))
    assert all(torch.equal(expected.model[name], found.model[name]) for name in expected.model)
    assert [e["total"] for e in read_log(whole / "log.jsonl")] == [
        e["total"] for e in read_log(part / "log.jsonl")
    ]
    # A third time there is nothing left to do; the config may be left to the checkpoint.
    assert run(*command[2:], "--output_dir", part) == 0
    assert (part / "checkpoint.pth").stat().st_mtime_ns == found.path.stat().st_mtime_ns


def test_flags_of_a_start_count_at_the_start_alone(command, tmp_path):
    first, out = tmp_path / "first", tmp_path / "run"
    assert run(*command, "--output_dir", first, "--debug", options=("epochs=1",)) == 0
    start = ("--pretrain_model_path", first / "checkpoint.pth", "--start_epoch", "1", "--output_dir", out)
    assert run(*command, *start, options=("lr=0", "lr_backbone=0")) == 0
    assert {entry["epoch"] for entry in read_log(out / "log.jsonl")} == {2}
    assert run(*command, *start, options=("epochs=3",)) == 0
    assert [e["epoch"] for e in read_log(out / "log.jsonl") if e["kind"] == "epoch"] == [2, 3]


def test_without_a_checkpoint_the_config_must_be_named(command, tmp_path, capsys):
    assert run(*command[2:], "--output_dir", tmp_path / "run") == 2
    assert "run has no checkpoint to go on from: name a config with -c" in errors(capsys)
    assert not (tmp_path / "run").exists()
    assert run("--eval", "--resume", "auto", "--output_dir", tmp_path / "run") == 2
    assert "--resume auto goes on with training" in errors(capsys)


@pytest.mark.ci
def test_of_two_runs_that_start_together_one_trains(command, tmp_path):
    words = [
        sys.executable,
        ROOT / "main.py",
        *command,
        "--output_dir",
        tmp_path / "run",
        "--num_workers",
        "0",
    ]
    both = [subprocess.Popen(words, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    lines = outputs[both.index(next(p for p in both if p.returncode))][1].splitlines()
    assert len(lines) == 1 and "error: another run, pid " in lines[0]
    entries = read_log(tmp_path / "run" / "log.jsonl")
    assert [e["epoch"] for e in entries if e["kind"] == "epoch"] == [1, 2]


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            continue
    own = [child for child, parent in sorted(parents.items()) if parent == pid]
    return own + [further for child in own for further in children(child)]


@contextmanager
def launched(command, folder: Path) -> Iterator[subprocess.Popen]:
    """Two ranks with a loader process each, by the script, once they train; they would for hours."""
    script = ["bash", ROOT / "scripts" / "richsem_dist.sh", "2", *command, "--output_dir", folder]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    words = [*script, "--num_workers", "1", "--options", "batch_size=1", "epochs=9999", "eval_interval=9999"]
    with subprocess.Popen(words, env=environment, stdout=-1, stderr=-1, text=True) as process:
        try:
            deadline = time.monotonic() + 300
            while not (folder / "checkpoint.pth").exists():
                assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
                time.sleep(0.1)
            yield process
        finally:
            process.kill()


@pytest.mark.ci
def test_a_killed_rank_has_the_last_word(command, tmp_path):
    with launched(command, tmp_path / "run") as process:
        os.kill(children(process.pid)[1], signal.SIGKILL)
        _, printed = process.communicate(timeout=120)
    assert process.returncode == 137
    assert printed == "error: rank 1 was killed by SIGKILL\n"


@pytest.mark.ci
def test_a_rank_that_is_told_to_stop_before_it_misses_the_other_one_is_silent(command, tmp_path):
    with launched(command, tmp_path / "run") as process:
        first, second = children(process.pid)[:2]
        os.kill(first, signal.SIGSTOP)
        os.kill(second, signal.SIGKILL)
        time.sleep(2)  # by now the launcher has sent SIGTERM, which waits
        os.kill(first, signal.SIGCONT)
        _, printed = process.communicate(timeout=120)
    assert process.returncode == 137
    assert printed == "error: rank 1 was killed by SIGKILL\n"


@pytest.mark.ci
def test_a_hung_rank_is_named(command, tmp_path):
    with launched((*command, "--timeout", "0.1"), tmp_path / "run") as process:
        os.kill(children(process.pid)[1], signal.SIGSTOP)
        _, printed = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.fullmatch(r"error: rank 1 has not answered for \d+ s\n", printed)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "x"])
def test_a_timeout_is_a_number_of_minutes(minutes, capsys):
    assert run("-c", "a.py", "--output_dir", "o", "--timeout", minutes) == 2
    assert "--timeout" in errors(capsys)


@pytest.mark.ci
def test_nothing_trains_on_after_a_killed_launcher_and_the_same_command_goes_on(command, tmp_path, caplog):
    folder = tmp_path / "run"
    with launched(command, folder) as process:
        others = children(process.pid)
        assert len(others) >= 4  # two ranks and their loader processes
        process.kill()
        wait_until_gone(*others)
    done = read_checkpoint(folder / "checkpoint.pth").epoch
    assert run(*command, "--output_dir", folder, options=(f"epochs={done + 1}", "batch_size=1")) == 0
    assert read_checkpoint(folder / "checkpoint.pth").epoch == done + 1
    assert f"took over from pid {others[0]} on" in caplog.text
