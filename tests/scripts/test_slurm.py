"""scripts/slurm.sbatch, run by bash with stand-ins for SLURM's programs."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.source_files import ROOT

SBATCH = ROOT / "scripts" / "slurm.sbatch"
# A step: its command once on each machine. Signals are passed on, the worst status is its own.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$node "$@" & pids+=($!); done
trap 'kill -USR1 "${pids[@]}"' USR1
trap 'kill -TERM "${pids[@]}"' TERM
worst=0
for pid in "${pids[@]}"; do
    while :; do
        status=0; wait "$pid" || status=$?
        kill -0 "$pid" 2>/dev/null || break
    done
    wait "$pid" || status=$?
    [ "$status" -le "$worst" ] || worst=$status
done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo "node7"; echo "node8"; else echo "$@" >> scontrol.txt; fi
"""
# In place of the launcher.
LAUNCHER = """
trap 'sleep 0.2; exit 0' USR1
trap 'sleep 0.2; exit 143' TERM
echo "$NNODES $NODE_RANK $MASTER_ADDR $MASTER_PORT $*" > "started.$NODE_RANK"
for _ in $(seq 600); do [ ! -e finish ] || exit "$(cat finish)"; sleep 0.1; done
"""


@contextmanager
def job(folder: Path, nodes: int = 2) -> Iterator[subprocess.Popen]:
    """The batch script, once each machine's command runs."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("scripts/richsem_dist.sh", LAUNCHER)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {"JOB_ID": "123456", "JOB_NUM_NODES": str(nodes), "JOB_NODELIST": "node[7-8]"}
    slurm |= {"SUBMIT_DIR": str(folder), "GPUS_ON_NODE": "4"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    words = ["bash", str(SBATCH), "-c", "a config.py"]
    with subprocess.Popen(words, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while len(list(folder.glob("started.*"))) < nodes:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            (folder / "finish").write_text("1")


def requeued(folder: Path) -> str:
    path = folder / "scontrol.txt"
    return path.read_text() if path.exists() else ""


def test_each_machine_gets_its_place_and_a_finished_job_is_done(tmp_path):
    with job(tmp_path) as process:
        (tmp_path / "finish").write_text("0")
        assert process.wait(60) == 0
        assert requeued(tmp_path) == ""
    for node in range(2):
        line = (tmp_path / f"started.{node}").read_text()
        assert line == f"2 {node} node7 23456 4 --resume auto -c a config.py\n"


@pytest.mark.parametrize(
    ("number", "status", "again"),
    [(signal.SIGUSR1, 0, "requeue 123456\n"), (signal.SIGTERM, 143, "")],
)
def test_signals_reach_every_machine(number, status, again, tmp_path):
    with job(tmp_path) as process:
        process.send_signal(number)
        assert process.wait(60) == status
        assert requeued(tmp_path) == again


def test_a_failure_is_not_tried_again(tmp_path):
    with job(tmp_path, nodes=1) as process:
        (tmp_path / "finish").write_text("2")
        assert process.wait(60) == 2
        assert requeued(tmp_path) == ""


def test_scripts_parse():
    scripts = [*ROOT.glob("scripts/*.sh"), SBATCH]
    for script in scripts:
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    lines = SBATCH.read_text().splitlines()
    options = [line for line in lines if line.startswith("#SBATCH")]
    # sbatch reads options up to the first command.
    assert lines.index(options[-1]) < lines.index("set -euo pipefail") and len(options) == 9
