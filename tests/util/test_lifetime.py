"""Processes end with the process that started them. Real processes, killed for good."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.source_files import ROOT
from util import lifetime

# A rank with two loader processes that hang.
RANK = """
import multiprocessing, os, time
from util.lifetime import tie_loader_process
def work(number):
    tie_loader_process(number)
    # One write: an unbuffered print is two, and those of two processes mix.
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(600)
workers = [multiprocessing.Process(target=work, args=[number], daemon=True) for number in range(2)]
for worker in workers:
    worker.start()
"""


@contextmanager
def process(program: str, lines: int, **variables: str) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """A process that prints that many numbers of its children."""
    environment = {**os.environ, **variables}
    words = [sys.executable, "-c", program]
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        children = [int(started.stdout.readline()) for _ in range(lines)]
        try:
            yield started, children
        finally:
            started.kill()
            for child in filter(alive, children):
                os.kill(child, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(*pids: int) -> None:
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, f"{[pid for pid in pids if alive(pid)]} live on"
        time.sleep(0.01)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_loader_processes_end_with_their_rank_and_by_nothing_else():
    with process(RANK + "time.sleep(600)", 2) as (rank, workers):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            for worker in workers:
                os.kill(worker, number)
        time.sleep(0.2)
        assert all(map(alive, workers))
        rank.kill()
        wait_until_gone(*workers)


def test_a_rank_ends_its_loader_processes_as_torch_does():
    # At exit multiprocessing sends them SIGTERM and waits.
    with process(RANK + "time.sleep(0.5)", 2) as (rank, workers):
        assert rank.wait(60) == 0
        wait_until_gone(*workers)


@pytest.mark.parametrize(("torchrun", "launcher"), [("x", ""), ("x", "1"), ("", "1")])
def test_a_rank_ends_with_its_launcher(torchrun, launcher):
    rank = "import time; from util.lifetime import die_with_launcher; "
    rank += "die_with_launcher(); print('tied', flush=True); time.sleep(600)"
    program = f"import subprocess, sys\nrank = subprocess.Popen([sys.executable, '-c', {rank!r}])\n"
    program += "print(rank.pid, flush=True)\nrank.wait()"
    named = {"TORCHELASTIC_RUN_ID": torchrun, lifetime.LAUNCHER: launcher}
    variables = {name: value for name, value in named.items() if value}
    with process(program, 1, **variables) as (agent, ranks):
        if launcher:  # it is not the parent: that ended before the rank could be tied
            wait_until_gone(*ranks)
            return
        assert agent.stdout.readline() == "tied\n"
        agent.kill()
        wait_until_gone(*ranks)


def test_a_process_of_no_launcher_is_left_alone():
    rank = "from util.lifetime import die_with_launcher; die_with_launcher(); import time; time.sleep(0.5)"
    program = (
        f"import subprocess, sys\nrank = subprocess.Popen([sys.executable, '-c', {rank!r} + ';print(7)'])"
    )
    with process(program + "\nprint(rank.pid, flush=True)", 1) as (agent, _):
        # Its parent ended at once; it finishes.
        assert agent.stdout.readline() == "7\n"
