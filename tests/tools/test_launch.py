import os
import subprocess
import sys

import pytest
import torch

from tests.source_files import ROOT
from tools import launch as launcher
from util.errors import UserError


def launch(*words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", "tools.launch", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_launcher_passes_on_how_a_process_failed(tmp_path):
    failing = tmp_path / "fails.py"
    failing.write_text(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1': time.sleep(600)\n"
        "print('error: no such folder', sys.argv[1:], file=sys.stderr)\n"
        "sys.exit(2)\n"
    )
    done = launch("2", str(failing), "--a", "b")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: no such folder ['--a', 'b']"


def test_the_launcher_names_the_signal_that_killed_a_process(tmp_path):
    killed = tmp_path / "killed.py"
    killed.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = launch("1", str(killed))
    assert done.returncode == 137
    assert done.stderr.strip() == "error: rank 0 was killed by SIGKILL"


@pytest.mark.parametrize("words", [[], ["main.py"], ["0", "main.py"]])
def test_the_launcher_needs_a_number(words):
    with pytest.raises(UserError, match="the first argument is the number of processes"):
        launcher.main(words)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes asked for, but this machine shows 1 GPUs"):
        launcher.main(["2", "main.py"])
