"""scripts/setup.sh: what a user sees when Python is missing or too old, and what a second call costs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """A folder with what setup.sh needs and no environment."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


def setup(folder: Path, python: str) -> subprocess.CompletedProcess:
    command = ["bash", str(folder / "scripts" / "setup.sh")]
    environment = {**os.environ, "PYTHON": python}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def fake_python(folder: Path, version: str) -> str:
    """An interpreter that only knows its version, and that it is not enough."""
    path = folder / "python-old"
    path.write_text(f'#!/bin/sh\ncase "$2" in *sys.exit*) exit 1 ;; *) echo {version} ;; esac\n')
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_named(clone):
    done = setup(clone, fake_python(clone, "3.8"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Python 3.10 or newer is needed" in done.stderr and "is 3.8" in done.stderr
    assert not (clone / ".venv").exists()


def test_an_absent_python_is_named(clone):
    done = setup(clone, "/nowhere/python3")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "/nowhere/python3" in done.stderr


def test_a_finished_environment_is_left_alone(clone):
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    stamp = clone / ".venv" / "richsem-setup.stamp"
    stamp.write_bytes(subprocess.run(["cksum"], input=b"", capture_output=True, check=True).stdout)
    done = setup(clone, "/nowhere/python3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_sourcing_leaves_nothing_behind(clone):
    script = f"""
    cd /
    PYTHON=/nowhere/python3 source {clone}/scripts/setup.sh 2> /dev/null
    echo "status $?" "$PWD"
    set | grep -c '^richsem_\\|^stamp='
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["status", "1", "/", "0"]
