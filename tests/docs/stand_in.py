"""A checkout in which the quickstart has run, in miniature: what the documentation's blocks start from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_files import ROOT

# The quickstart's model made smaller: half a minute on one core, and some of its scores pass 0.05.
TRAINING = {
    "epochs": 6,
    "eval_interval": 6,
    "use_rfs": False,
    "amp": False,
    "enc_layers": 1,
    "dec_layers": 2,
    "num_queries": 20,
    "dn_number": 20,
    "warmup_iters": 10,
    "data_aug_scales": [96],
    "data_aug_scales2_resize": [96],
    "data_aug_scales2_crop": [80, 96],
    "mosaic_size": 96,
}
# A dry `pip install -r FILE ...`: the packages of the files have to be there.
PIP = """\
import importlib.metadata, re, sys
for flag, name in zip(sys.argv, sys.argv[1:]):
    if flag == "-r":
        for line in open(name):
            package = re.match(r"[\\w.-]+", line)
            if package:
                importlib.metadata.version(package[0])
"""


def program(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


def make_environment(folder: Path) -> None:
    """A finished .venv that leads to the interpreter of the tests, in which pip installs nothing."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "python3"):
        program(programs / name, f"'{sys.executable}'")
    (folder / ".venv" / "pip.py").write_text(PIP)
    program(programs / "pip", f"'{sys.executable}' '{folder / '.venv' / 'pip.py'}'")
    (programs / "activate").write_text(f"export PATH='{programs}':\"$PATH\"\n")
    stamp = "cat requirements.txt constraints.txt | cksum > .venv/richsem-setup.stamp"
    subprocess.run(["bash", "-c", stamp], cwd=folder, check=True)


def environment(folder: Path) -> dict[str, str]:
    """Variables for commands in that checkout."""
    paths = [str(folder / ".venv" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """A command in that checkout, output and errors together."""
    return subprocess.run(
        words,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def copy_sources(folder: Path) -> None:
    """The files of the repository, without what the project or an editor makes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="session")
def finished_quickstart(tmp_path_factory) -> Path:
    """The checkout; tests copy it and leave it as it is."""
    folder = tmp_path_factory.mktemp("quickstart") / "richsem"
    copy_sources(folder)
    make_environment(folder)
    config = folder / "config" / "quickstart" / "richsem_mini.py"
    smaller = "".join(f"{key} = {value!r}\n" for key, value in TRAINING.items())
    config.write_text(config.read_text() + smaller)
    data = "runs/quickstart/data"
    size = ("--train", "60", "--val", "16", "--image_level", "3", "--workers", "1")
    commands = [
        ("python", "tools/make_mini_lvis.py", "--output", data, *size),
        ("bash", "scripts/quickstart.sh"),  # what is done is skipped: the data
    ]
    for words in commands:
        done = run(folder, *words)
        assert done.returncode == 0, done.stdout
    shutil.copy(next((folder / data / "lvis_v1" / "val2017").iterdir()), folder / "image.jpg")
    return folder


@pytest.fixture
def checkout(finished_quickstart, tmp_path) -> Path:
    """A copy of the finished quickstart's checkout, for one test."""
    folder = tmp_path / "richsem"
    shutil.copytree(finished_quickstart, folder, ignore=shutil.ignore_patterns(".venv"))
    make_environment(folder)
    return folder
