import os
import socket
from datetime import timedelta

import pytest
import torch
from torch import nn

from tests.processes import run_on_ranks
from util import distributed
from util.errors import UserError


def exercise_collectives() -> dict:
    rank = distributed.rank()
    module = nn.BatchNorm1d(3)
    module.running_mean.fill_(float(rank))
    module.register_buffer("flags", torch.tensor([rank == 0]))
    distributed.broadcast_buffers(module)
    distributed.barrier()
    return {
        "rank": rank,
        "world": distributed.world_size(),
        "main": distributed.is_main(),
        "mean": distributed.all_reduce_mean(torch.tensor([float(rank), 10.0])).tolist(),
        "objects": distributed.all_gather_object({"r": rank}),
        "broadcast": distributed.broadcast_object(("from", rank)),
        "on_main": distributed.on_main(lambda: f"made by {rank}"),
        "buffers": (module.running_mean.tolist(), module.flags.tolist()),
    }


def leave_alone() -> bool | None:
    """Rank 1 leaves; whether rank 0 takes what it then meets for that."""
    if distributed.rank() == 1:
        distributed.shutdown()
        return None
    try:
        distributed.barrier()
    except RuntimeError as error:
        return distributed.lost_peer(error) and not distributed.lost_peer(RuntimeError("of its own"))
    return None


def fail_on_main() -> str:
    def fail():
        raise UserError("no such folder")

    try:
        distributed.on_main(fail)
    except UserError as error:
        return str(error)
    return "no error"


def test_two_ranks():
    first, second = run_on_ranks(2, exercise_collectives)
    assert (first["rank"], second["rank"]) == (0, 1)
    assert (first["main"], second["main"]) == (True, False)
    for result in (first, second):
        assert result["world"] == 2
        assert result["mean"] == [0.5, 10.0]
        assert result["objects"] == [{"r": 0}, {"r": 1}]
        assert result["broadcast"] == ("from", 0)
        assert result["on_main"] == "made by 0"
        assert result["buffers"] == ([0.0, 0.0, 0.0], [True])


def test_an_error_on_rank_0_reaches_every_rank():
    assert run_on_ranks(2, fail_on_main) == ["no such folder"] * 2


def test_a_rank_that_lost_another_knows_it():
    assert run_on_ranks(2, leave_alone) == [True, None]


def test_ranks_that_are_not_all_there_are_one_line(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens
        variables = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match="the ranks did not find together: ") as caught:
            distributed.setup("cpu", timeout=timedelta(seconds=1))
        assert "\n" not in str(caught.value)


def test_one_process_needs_no_group():
    result = exercise_collectives()
    assert result["world"] == 1 and result["main"]
    assert result["mean"] == [0.0, 10.0]
    assert result["on_main"] == "made by 0"
    assert not torch.distributed.is_initialized()
    with pytest.raises(UserError, match="no such folder"):
        distributed.on_main(lambda: (_ for _ in ()).throw(UserError("no such folder")))


def test_the_mean_does_not_touch_its_input():
    value = torch.tensor([3.0], requires_grad=True)
    assert distributed.all_reduce_mean(value).item() == 3.0


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(UserError, match=f"--device {device}"):
        distributed.setup(device)


def test_auto_is_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert distributed.setup("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="this machine shows 0"):
        distributed.setup("cuda")


def test_cores_are_split_unless_the_user_decided(monkeypatch):
    threads = torch.get_num_threads()
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(distributed, "available_cores", lambda: 8)
        distributed.share_cores(3)
        assert torch.get_num_threads() == 2
        distributed.share_cores(16)
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        distributed.share_cores(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= distributed.available_cores() <= os.cpu_count()
