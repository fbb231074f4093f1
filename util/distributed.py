"""One process or many: the same calls work in both.

Processes are started by torchrun (or anything that sets RANK, WORLD_SIZE and LOCAL_RANK). Tensors on a
GPU travel by NCCL, tensors on the CPU and Python objects by gloo. With one process nothing is started
and every call is the identity.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.errors import UserError, first_line
from util.lifetime import die_with_launcher
from util.rank_watch import RankWatch

T = TypeVar("T")

# The longest that one rank may wait for another, e.g. for rank 0 computing the metrics.
TIMEOUT = timedelta(minutes=30)

_watch: RankWatch | None = None
# Collectives that this rank has come to, at least one a step.
_calls = 0


def setup(device: str = "auto", local_rank: int | None = None, timeout: timedelta = TIMEOUT) -> torch.device:
    """Joins the process group that the environment describes and returns this process's device.

    device: 'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'.
    local_rank: used where the environment has no LOCAL_RANK (old launchers pass it as a flag).
    timeout: after which a rank that does not answer is named, and the run ends.
    Raises UserError for a device that is not there, and where the other ranks cannot be reached.
    """
    die_with_launcher()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", local_rank or 0))
    chosen = choose_device(device, local, processes)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    else:
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", processes)))
    if processes > 1 and not dist.is_initialized():
        try:
            _join("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"the ranks did not find together: {first_line(error)}") from error
    return chosen


def _join(backend: str, timeout: timedelta) -> None:
    """Starts the process group, and the watch over its ranks."""
    global _watch
    # A store may have entries of processes that torchrun has started again.
    attempt = f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    stores = []
    for _ in range(2):
        store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
        stores.append(dist.PrefixStore(attempt, store))
    watch = RankWatch(stores[0], rank, world_size, timeout.total_seconds(), lambda: _calls)
    # The watch speaks first: it knows who is missing.
    patience = timeout + timedelta(seconds=60)
    dist.init_process_group(backend, store=stores[1], rank=rank, world_size=world_size, timeout=patience)
    watch.start()
    _watch = watch


def choose_device(device: str, local_rank: int = 0, processes: int = 1) -> torch.device:
    """The device of one of `processes`.

    device: 'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'.
    Raises UserError for a device that is not there.
    """
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: unknown device; use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise UserError(f"--device {device}: only cpu and cuda are supported")
    index = local_rank if processes > 1 or chosen.index is None else chosen.index
    if index >= gpus:
        raise UserError(f"--device {device}: GPU {index} was asked for, this machine shows {gpus}")
    return torch.device("cuda", index)


def shutdown() -> None:
    """Leaves the process group, if there is one."""
    global _watch
    if _watch is not None:
        _watch.end()
        _watch = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def lost_peer(error: BaseException) -> bool:
    """Whether an error of this rank only says that another one is gone, or does not answer."""
    if not (is_distributed() and isinstance(error, RuntimeError)):
        return False
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def available_cores() -> int:
    """CPU cores this process may use: its affinity, cut by a container's quota where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()[:2]
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return max(1, cores)


def share_cores(processes: int) -> None:
    """Splits the cores evenly among the processes of this machine. OMP_NUM_THREADS, if set, wins."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // max(1, processes)))


def is_distributed() -> bool:
    """True when more than one process takes part."""
    return world_size() > 1


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def ranks_here() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def is_main() -> bool:
    """True on the one rank that writes files and talks to the user."""
    return rank() == 0


def barrier() -> None:
    """Waits until every rank is here."""
    if is_distributed():
        # An object travels by gloo: dist.barrier would start NCCL for nothing.
        all_gather_object(None)


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """The mean over ranks, as a new tensor. Floating point, the same shape on every rank."""
    if not is_distributed():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def max_over_ranks(values: Sequence[int]) -> list[int]:
    """The largest of each number over ranks. The numbers are on the CPU: no GPU has to be waited for."""
    if not is_distributed():
        return list(values)
    _count_call()
    largest = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest.tolist()


def all_gather_object(value: T) -> list[T]:
    """Every rank's object (small, picklable), in order of rank."""
    if not is_distributed():
        return [value]
    _count_call()
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's tensor, on every rank, as a new tensor. The same shape and kind on every rank."""
    if not is_distributed():
        return tensor
    copied = tensor.detach().clone()
    dist.broadcast(copied, src=0)
    return copied


def all_gather_rows(rows: Tensor) -> None:
    """Fills `rows` (ranks, N), contiguous, of which each rank has filled the one of its number."""
    if is_distributed():
        dist.all_gather_into_tensor(rows.view(-1), rows[rank()])


def send_to_main(tensor: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Rank 0 gets the tensors (N,) of ranks 1, 2, ... in memory of the CPU; the others get nothing.

    lengths: N of every rank's. The same kind on every rank. Called on every rank.
    """
    received: list[Tensor] = []
    if not is_main():
        dist.send(tensor.cpu(), dst=0)
    for source in range(1, world_size()) if is_main() else ():
        received.append(torch.empty(lengths[source], dtype=tensor.dtype))
        dist.recv(received[-1], src=source)
    return received


def broadcast_object(value: T) -> T:
    """Rank 0's object, on every rank."""
    if not is_distributed():
        return value
    _count_call()
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_main(function: Callable[[], T]) -> T:
    """Runs `function` on rank 0 only and gives its result, or raises its UserError, on every rank."""
    if not is_distributed():
        return function()
    outcome: Any = None
    if is_main():
        try:
            outcome = ("result", function())
        except UserError as error:
            outcome = ("error", str(error))
    kind, value = broadcast_object(outcome)
    if kind == "error":
        raise UserError(value)
    return value


def _count_call() -> None:
    global _calls
    _calls += 1


def broadcast_buffers(module: nn.Module) -> None:
    """Gives every rank rank 0's buffers, e.g. the running statistics of batch norm."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
