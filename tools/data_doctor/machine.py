"""What the machine lacks for reading data in several processes."""

from collections.abc import Iterator

from config import Config
from config.command_line import MOST_WORKERS
from datasets.worker_limits import (
    batch_bytes,
    free_shared_memory,
    shared_memory_line,
    shared_memory_needed,
)
from tools.data_doctor.findings import Finding, Severity
from util.distributed import available_cores


def check_shared_memory(config: Config) -> Iterator[Finding]:
    """Whether the batches of a default number of loader processes fit. config: of their sizes."""
    free, workers = free_shared_memory(), min(MOST_WORKERS, available_cores())
    # Upright and wide images may meet in a batch.
    side = config.data_aug_max_size
    largest = batch_bytes((side, side), config.images_per_batch, config.pad_size_divisor)
    if free is not None and shared_memory_needed(workers, largest) > free:
        what = shared_memory_line(workers, largest, free)
        remedy = "until then training uses fewer loader processes, and is slower"
        yield Finding(Severity.WARNING, "machine", what, remedy)
