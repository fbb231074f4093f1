"""`python -m tools.launch N PROGRAM [ARGUMENTS]`: N processes by torchrun, one per GPU or on the CPU.

What torchrun itself leaves to do: the cores are split among CPU processes, more processes than GPUs are
refused, and when a process fails its own message is the last word instead of the launcher's traceback.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from util import distributed
from util.errors import UserError, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status of the first process that failed, else 0; UserError for a wrong count."""
    words = list(sys.argv[1:] if argv is None else argv)
    processes = _count(words)
    if not torch.cuda.device_count():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, distributed.available_cores() // processes)))
    # Its error report repeats what the process has said, as a traceback of the launcher.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun(["--standalone", f"--nproc-per-node={processes}", *words[1:]])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"error: rank {rank} was killed by {name}", file=sys.stderr)
            return 128 - failure.exitcode
        return failure.exitcode
    return 0


def _count(words: Sequence[str]) -> int:
    if not words or not words[0].isdigit() or int(words[0]) < 1:
        given = f", not {words[0]!r}" if words else ""
        raise UserError(f"the first argument is the number of processes{given}")
    processes, gpus = int(words[0]), torch.cuda.device_count()
    if gpus and processes > gpus and "cpu" not in words:
        raise UserError(f"{processes} processes asked for, but this machine shows {gpus} GPUs")
    return processes


if __name__ == "__main__":
    sys.exit(run_command(main))
