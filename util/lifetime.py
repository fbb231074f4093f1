"""Processes that do not outlive the one that started them: ranks their launcher, loader processes their rank.

Imports nothing of ours and no torch, so that it is there at once.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from multiprocessing import parent_process

# Set by tools/launch.py and tools/ablate.py: the process that ranks, or runs, belong to.
LAUNCHER = "RICHSEM_LAUNCHER"
_PR_SET_PDEATHSIG = 1


def die_with_launcher() -> None:
    """Ties a rank to torchrun's agent, and a run to the program that started it and set `LAUNCHER`.

    A process of neither is left alone.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or LAUNCHER in os.environ:
        die_with_parent(int(os.environ.get(LAUNCHER, os.getppid())))


def die_with_parent(parent: int) -> None:
    """From now on this process is killed when `parent`, its parent, ends, however that ends.

    By the kernel on Linux; elsewhere a thread looks every second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=[parent], name="parent watch", daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


def tie_loader_process(_: int) -> None:
    """A DataLoader's `worker_init_fn`: the process ends with its rank, and by nothing else.

    A signal that asks a run to stop often reaches all of its processes (from a terminal, torchrun, SLURM or
    systemd). The rank needs its loader processes until it has stopped, so only its own SIGTERM ends them.
    """
    parent = parent_process()
    assert parent is not None and parent.pid is not None
    die_with_parent(parent.pid)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        # Threads that start later inherit this, so that the signal waits for the one below.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_end, args=[parent.pid], name="end", daemon=True).start()


def _await_end(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
