"""`python -m tools.launch N PROGRAM [ARGUMENTS]`: N processes by torchrun, one per GPU or on the CPU.

What torchrun itself leaves to do: the cores are split among CPU processes, more processes than GPUs are
refused, signals end a run in order (SIGUSR1 too), and when a process fails its own message is the last word
instead of the launcher's traceback.

Its environment (MAX_RESTARTS, NNODES, NODE_RANK, MASTER_ADDR, RDZV_ENDPOINT, ...) is in docs/cluster.md.
"""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch
from torch.distributed import DistError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import api as multiprocessing
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException, SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher import api
from torch.distributed.run import main as torchrun

from util import distributed
from util.errors import UserError, first_line, run_command
from util.lifetime import LAUNCHER
from util.signals import ignored

# Seconds that processes have to write a checkpoint after a signal.
GRACE = 60
# Seconds after which SIGUSR1 is sent again: a process that is still starting ignores it.
REPEAT = 5.0
# Exit status after an error that the user can fix: starting again would not.
USER_ERROR = 2


class Agent(LocalElasticAgent):
    """torchrun's agent, which also forwards SIGUSR1, and gives processes time to stop."""

    _asked = 0.0  # when SIGUSR1 was last sent, 0 for never
    _stopping = False

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        # Inherited by the processes, until they can handle it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        with _stop_held():
            started: dict[int, Any] = super()._start_workers(worker_group)
        signal.signal(signal.SIGUSR1, self._forward)
        return started

    def _forward(self, number: int, _: FrameType | None = None) -> None:
        self._asked = time.monotonic()
        for pid in _subprocesses(self._pcontext).pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.is_failed():
            rank, failure = ChildFailedError("", result.failures).get_first_failure()
            if failure.exitcode == USER_ERROR:
                self._remaining_restarts = 0
            elif self._remaining_restarts:
                most = self._worker_group.spec.max_restarts
                which = f"restart {most - self._remaining_restarts + 1} of {most}"
                print(f"{how_it_ended(rank, failure)}: {which}", file=sys.stderr, flush=True)
        elif self._asked and time.monotonic() - self._asked > REPEAT:
            self._forward(signal.SIGUSR1)
        return result

    def _shutdown(self, death_sig: signal.Signals | None = None, *rest: Any, **named: Any) -> None:
        """death_sig: the signal that this process got; None to clean up, or before starting again."""
        if self._pcontext is not None:
            if death_sig is not None:
                # It often comes twice, to the process and to its group. A second Ctrl-C is meant.
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                    signal.signal(number, signal.SIG_IGN)
            how = signal.SIGKILL if self._stopping else signal.SIGTERM
            self._stopping = death_sig is not None
            running = self._running()
            # SIGTERM for any signal: a process that is still starting ends without a traceback.
            _subprocesses(self._pcontext).close(how, timeout=GRACE)
            if death_sig is not None:
                self._report_stop(running, death_sig)
            self._stopping = False
        super()._shutdown(death_sig or signal.SIGTERM, *rest, **named)

    def _running(self) -> list[int]:
        """Local ranks."""
        handlers = _subprocesses(self._pcontext).subprocess_handlers
        return [rank for rank, handler in handlers.items() if handler.proc.poll() is None]

    def _report_stop(self, local_ranks: Sequence[int], death_sig: signal.Signals) -> None:
        """Speaks for processes that could not speak for themselves."""
        handlers = _subprocesses(self._pcontext).subprocess_handlers
        ends = {self._worker_group.workers[r].global_rank: handlers[r].proc.returncode for r in local_ranks}
        for rank in [rank for rank, end in ends.items() if end == -signal.SIGKILL]:
            print(f"error: rank {rank} did not stop in {GRACE} s and was killed", file=sys.stderr)
        if ends and set(ends.values()) == {-signal.SIGTERM}:
            print(f"stopped by {death_sig.name}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status of the first process that failed, else 0; after a signal 128 + its number.

    Raises UserError for a wrong number of processes or machines, and when the machines do not find together.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    processes = _count(words)
    if not torch.cuda.device_count():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, distributed.available_cores() // processes)))
    os.environ[LAUNCHER] = str(os.getpid())
    # Its error report repeats what the process has said, as a traceback of the launcher.
    elastic = logging.getLogger("torch.distributed.elastic")
    elastic.propagate = False
    elastic.addHandler(logging.NullHandler())
    api.LocalElasticAgent = Agent  # type: ignore[misc]
    try:
        torchrun([*_machines(), f"--nproc-per-node={processes}", *_restarts(), *words[1:]])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            print(f"error: {how_it_ended(rank, failure)}", file=sys.stderr)
            return 128 - failure.exitcode
        return failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    except (RendezvousError, DistError) as error:
        raise UserError(f"the machines did not find together ({first_line(error)})") from error
    return 0


def how_it_ended(rank: int, failure: ProcessFailure) -> str:
    """One failed process in words."""
    if failure.exitcode < 0:
        return f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}"
    return f"rank {rank} ended with status {failure.exitcode}"


@contextmanager
def _stop_held() -> Iterator[None]:
    """While processes are started, a signal to stop waits: torchrun could not tell yet whom to stop.

    A hang-up that nohup has ignored stays ignored, which torchrun would handle.
    """
    held: list[int] = []
    nohup = ignored("SIGHUP")

    def hold(number: int, _: FrameType | None) -> None:
        if not (nohup and number == signal.SIGHUP):
            held.append(number)

    stop = multiprocessing._terminate_process_handler
    multiprocessing._terminate_process_handler = hold  # type: ignore[assignment]  # installed before they start
    try:
        yield
    finally:
        multiprocessing._terminate_process_handler = stop
        for number in signal.valid_signals():
            if signal.getsignal(number) is hold:
                signal.signal(number, signal.SIG_IGN if nohup and number == signal.SIGHUP else stop)
    if held:
        stop(held[0], None)


def _subprocesses(context: PContext | None) -> SubprocessContext:
    assert isinstance(context, SubprocessContext)
    return context


def _count(words: Sequence[str]) -> int:
    if not words or not words[0].isdigit() or int(words[0]) < 1:
        given = f", not {words[0]!r}" if words else ""
        raise UserError(f"the first argument is the number of processes{given}")
    processes, gpus = int(words[0]), torch.cuda.device_count()
    if gpus and processes > gpus and "cpu" not in words:
        raise UserError(f"{processes} processes asked for, but this machine shows {gpus} GPUs")
    return processes


def _restarts() -> list[str]:
    """torchrun's flag for MAX_RESTARTS."""
    given = _variable("MAX_RESTARTS") or "0"
    if not given.isdigit():
        raise UserError(f"MAX_RESTARTS={given}: must be a number, 0 or more")
    return [f"--max-restarts={given}"]


def _machines() -> list[str]:
    """torchrun's flags for this machine alone, or for its place among several."""
    machines, endpoint = _variable("NNODES") or "1", _variable("RDZV_ENDPOINT")
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", machines):
        raise UserError(f"NNODES={machines}: must be the number of machines, or FEWEST:MOST")
    if endpoint:
        backend, name = _variable("RDZV_BACKEND") or "c10d", _variable("RDZV_ID") or "richsem"
        together = [f"--rdzv-backend={backend}", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={name}"]
        return [f"--nnodes={machines}", *together]
    if machines == "1":
        return ["--standalone"]
    place = {name: _variable(name) for name in ("NODE_RANK", "MASTER_ADDR")}
    for name, value in place.items():
        if not value:
            raise UserError(f"NNODES={machines} needs {name} (or RDZV_ENDPOINT): see docs/cluster.md")
    port = _variable("MASTER_PORT") or "29500"
    number, address = place.values()
    for name, value, most in (
        ("NODE_RANK", number, int(machines.split(":")[-1]) - 1),
        ("MASTER_PORT", port, 65535),
    ):
        if not value.isdigit() or int(value) > most:
            raise UserError(f"{name}={value}: must be a number from 0 to {most}")
    return [
        f"--nnodes={machines}",
        f"--node-rank={number}",
        f"--master-addr={address}",
        f"--master-port={port}",
    ]


def _variable(name: str) -> str:
    """A variable of ours, or torchrun's own for the same; empty where neither is set."""
    return os.environ.get(name) or os.environ.get(f"PET_{name}", "")


if __name__ == "__main__":
    sys.exit(run_command(main))
