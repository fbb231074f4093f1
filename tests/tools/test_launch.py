import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.source_files import ROOT
from tests.util.test_lifetime import wait_until_gone
from tools import launch as launcher
from util.errors import UserError

# A rank that says when it runs, and ends with 143 or 0 half a second after SIGTERM or SIGUSR1.
RANK = """
import os, signal, sys, time
from util.lifetime import die_with_launcher
die_with_launcher()
def stop(number, _):
    time.sleep(0.5)
    if os.environ["RANK"] == "0":
        print("stopped at step 7, resume with --resume auto", flush=True)
    sys.exit(143 if number == signal.SIGTERM else 0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, stop)
os.write(1, f"{os.getpid()}\\n".encode())  # in one piece
time.sleep(600)
"""


@contextmanager
def running(tmp_path: Path, ranks: int, program: str = RANK, **variables: str) -> Iterator[tuple]:
    """The launcher, once its ranks run, and their pids."""
    file = tmp_path / "rank.py"
    file.write_text(program)
    words = [sys.executable, "-m", "tools.launch", str(ranks), str(file)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), **variables}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process, [int(process.stdout.readline()) for _ in range(ranks)]
        finally:
            process.kill()


def launch(*words: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
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


def test_sigterm_gives_ranks_time_and_ends_with_143(tmp_path):
    with running(tmp_path, 2) as (process, _):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # as from SLURM, which signals the group too
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert output == "stopped at step 7, resume with --resume auto\n" and errors == ""


def test_ranks_end_with_a_launcher_that_is_killed(tmp_path):
    with running(tmp_path, 2) as (process, ranks):
        process.kill()
        wait_until_gone(*ranks)


@pytest.mark.ci
@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 0)]
)
def test_other_signals_stop_ranks_too(number, status, tmp_path):
    with running(tmp_path, 2) as (process, _):
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert output == "stopped at step 7, resume with --resume auto\n" and errors == ""


@pytest.mark.ci
def test_sigusr1_reaches_a_rank_that_is_still_starting(tmp_path):
    late = RANK.replace("signal.signal(signal.SIGUSR1, stop)", "", 1) + "\n"
    late = late.replace(
        "time.sleep(600)\n", "time.sleep(2)\nsignal.signal(signal.SIGUSR1, stop)\ntime.sleep(600)\n"
    )
    with running(tmp_path, 1, late) as (process, _):
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=120)[0] == "stopped at step 7, resume with --resume auto\n"
    assert process.returncode == 0


@pytest.mark.ci
def test_a_rank_that_does_not_stop_is_killed_and_named(tmp_path):
    deaf = RANK.replace("    time.sleep(0.5)", "    if os.environ['RANK'] == '1': time.sleep(600)")
    with running(tmp_path, 2, deaf) as (process, _):
        process.send_signal(signal.SIGINT)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)  # the user insists
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.ci
def test_ranks_that_cannot_stop_in_order_are_spoken_for(tmp_path):
    plain = RANK.replace("signal.signal(signal.SIGTERM, stop)", "")
    with running(tmp_path, 2, plain) as (process, _):
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (143, "", "stopped by SIGTERM\n")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGTERM, 143, "stopped by SIGTERM\n"), (signal.SIGINT, 130, "stopped by the user\n")],
)
def test_ranks_that_stop_at_once_say_so_once(number, status, line, tmp_path):
    program = (
        "import os, time\n"
        "from util.signals import end_at_once\n"
        "end_at_once()\n"
        "os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "time.sleep(600)\n"
    )
    with running(tmp_path, 2, program) as (process, ranks):
        for pid in (
            (*ranks, process.pid) if number == signal.SIGINT else (process.pid,)
        ):  # a terminal's goes to all
            os.kill(pid, number)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, output, errors) == (status, "", line)


def launch_and_signal(
    tmp_path: Path, number: int, rank: str, before: str = ""
) -> subprocess.CompletedProcess:
    """Two ranks, whose launcher gets the signal right after each has begun, and prints its pid."""
    (tmp_path / "rank.py").write_text(rank)
    program = tmp_path / "launcher.py"
    program.write_text(
        "import os, signal, sys\n"
        f"{before}\n"
        "from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (\n"
        "    SubprocessHandler\n"
        ")\n"
        "from tools import launch\n"
        "start = SubprocessHandler._popen\n"
        "def start_and_signal(*arguments):\n"
        "    process = start(*arguments)\n"
        "    print(process.pid, flush=True)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    return process\n"
        "SubprocessHandler._popen = start_and_signal\n"
        f"sys.exit(launch.main(['2', {str(tmp_path / 'rank.py')!r}]))\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_signal_while_ranks_are_started_stops_them(tmp_path):
    """It came after the processes had begun and before torchrun knew them, so they lived on."""
    done = launch_and_signal(tmp_path, signal.SIGTERM, "import time\ntime.sleep(20)\n")
    assert (done.returncode, done.stderr) == (143, "stopped by SIGTERM\n")
    ranks = [int(pid) for pid in done.stdout.split()]
    assert len(ranks) == 2
    wait_until_gone(*ranks)


def test_nohup_outlives_a_hang_up_at_any_time(tmp_path):
    rank = "import os, signal, time\nos.kill(os.getppid(), signal.SIGHUP)\ntime.sleep(0.5)\n"
    nohup = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    done = launch_and_signal(tmp_path, signal.SIGHUP, rank, before=nohup)
    assert (done.returncode, done.stderr, len(done.stdout.split())) == (0, "", 2)


@pytest.mark.ci
def test_ranks_start_again_but_not_after_an_error_of_the_user(tmp_path):
    program = tmp_path / "fails.py"
    program.write_text(
        "import os, sys\n"
        "count = int(os.environ['TORCHELASTIC_RESTART_COUNT'])\n"
        "print('attempt', count, flush=True)\n"
        "if count < int(sys.argv[1]): os.kill(os.getpid(), 9)\n"
        "sys.exit(int(sys.argv[2]))\n"
    )
    done = launch("1", str(program), "2", "0", MAX_RESTARTS="2")
    assert (done.returncode, done.stdout) == (0, "attempt 0\nattempt 1\nattempt 2\n")
    assert done.stderr.splitlines()[0] == "rank 0 was killed by SIGKILL: restart 1 of 2"
    done = launch("1", str(program), "1", "2", MAX_RESTARTS="9")
    assert (done.returncode, done.stdout) == (2, "attempt 0\nattempt 1\n")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NNODES": "two"}, "NNODES=two: must be the number of machines"),
        ({"NNODES": "2"}, "NNODES=2 needs NODE_RANK"),
        ({"NNODES": "2", "NODE_RANK": "0"}, "NNODES=2 needs MASTER_ADDR"),
        (
            {"PET_NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"},
            "NODE_RANK=2: must be a number from 0 to 1",
        ),
        ({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT=x: must be"),
        ({"MAX_RESTARTS": "-1"}, "MAX_RESTARTS=-1: must be a number"),
    ],
)
def test_wrong_variables_are_named(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        launcher.main(["1", "main.py"])
