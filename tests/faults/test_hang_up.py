"""A terminal that closes, as when ssh breaks: the run writes a checkpoint, and goes on later."""

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from engine.run_directory import RunDirectory
from tests.faults.bench import PATIENCE, Bench, Setting, position
from tests.source_files import ROOT


def run_in_a_terminal(words: list[str], until: Path) -> int:
    """The exit status of a command whose terminal closes once the file `until` is there."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execvpe(words[0], words, {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})
    end = time.monotonic() + PATIENCE
    while not until.is_file() and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 4096)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.ci
@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_outlives_its_terminal_by_a_checkpoint(ranks, tmp_path):
    bench, run = Bench.made(tmp_path), RunDirectory(tmp_path / "run")
    words = bench.words(Setting(ranks, options=("epochs=500",)), run.path)
    program = [sys.executable, "main.py"] if ranks == 1 else ["bash", "scripts/richsem_dist.sh", str(ranks)]
    assert run_in_a_terminal([*program, *words], run.latest) == 129
    said = run.text_log.read_text().splitlines()[-1]
    assert said.endswith(f"stopped at step {position(run.path)}, resume with --resume auto")
