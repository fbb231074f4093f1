"""Runs a function on several gloo ranks, each a process of its own, as torchrun would."""

import multiprocessing
import os
import pickle
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from util import distributed


def run_on_ranks(ranks: int, function: Callable, *arguments: Any, timeout: float = 120) -> list[Any]:
    """Calls function(*arguments) on each rank and returns the results by rank.

    `function` is picklable, as are its arguments and result. Raises AssertionError with the traceback of a
    rank that failed, or when the ranks are not done in `timeout` seconds (a deadlock).
    """
    # One server imports torch (and what its optimizers import) once and forks the ranks of every test.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "util.distributed"])
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / f"{rank}.pickle" for rank in range(ranks)]
        processes = [
            context.Process(target=_rank, args=(rank, ranks, port, results[rank], function, arguments))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + timeout
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        stuck = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
        outcomes = [pickle.loads(path.read_bytes()) if path.exists() else None for path in results]
    for rank, outcome in enumerate(outcomes):
        assert outcome is None or outcome[0] == "result", f"rank {rank}: {outcome[1]}"
    assert not stuck, f"ranks {stuck} were not done after {timeout} s"
    assert all(outcomes), f"ranks {[r for r, o in enumerate(outcomes) if o is None]} gave no result"
    return [value for _, value in outcomes]


def _rank(rank: int, ranks: int, port: int, path: Path, function: Callable, arguments: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        distributed.setup("cpu")
        outcome = ("result", function(*arguments))
    except BaseException:
        outcome = ("error", traceback.format_exc())
    path.write_bytes(pickle.dumps(outcome))
    if outcome[0] == "error":
        # The other ranks may be waiting for this one: leave without saying goodbye.
        os._exit(1)
    distributed.shutdown()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
