"""Several machines: launchers that meet on the loopback train as one launcher with as many processes."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from tests.checkpoints import read_checkpoint
from tests.datasets.tiny import write_all
from tests.source_files import ROOT
from tests.test_cli import TINY

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("machines")
    config = folder / "tiny.py"
    config.write_text("\n".join(f"{key} = {value!r}" for key, value in (TINY | {"epochs": 1}).items()))
    data = write_all(folder / "data")
    return ("-c", config, "--data_path", data, "--num_workers", "0", "--options", "batch_size=1")


def start(processes: int, words: tuple, folder: Path, **variables: str) -> subprocess.Popen:
    script = ["bash", ROOT / "scripts" / "richsem_dist.sh", str(processes), "--output_dir", folder, *words]
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "MASTER_"))}
    environment = alone | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(script, env=environment, stdout=-1, stderr=-1, text=True)


def finish(*launchers: subprocess.Popen) -> None:
    outputs = [launcher.communicate(timeout=300) for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0] * len(launchers), outputs
    assert "".join(errors for _, errors in outputs) == ""


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def one_machine(command, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of one launcher with two processes."""
    folder = tmp_path_factory.mktemp("one") / "run"
    finish(start(2, command, folder))
    return read_checkpoint(folder / "checkpoint.pth").model


@pytest.mark.parametrize("how", ["static", "rendezvous"])
def test_two_launchers_train_as_one(how, command, one_machine, tmp_path):
    port = free_port()
    if how == "static":
        common = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own = [{"NODE_RANK": "1"}, {"NODE_RANK": "0"}]
    else:
        common = {"NNODES": "2", "RDZV_ENDPOINT": f"127.0.0.1:{port}", "RDZV_ID": "test"}
        common |= {"PET_LOCAL_ADDR": "127.0.0.1"}
        own = [{}, {}]
    finish(*[start(1, command, tmp_path / "run", **common, **variables) for variables in own])
    content = read_checkpoint(tmp_path / "run" / "checkpoint.pth")
    assert len(content.rng) == 2
    for name, value in one_machine.items():
        assert torch.equal(value, content.model[name]), name
