"""What becomes of a run whose loader processes die, are stuck, or have no room for their batches."""

import os
import signal
from collections.abc import Callable

import pytest
import torch

from datasets import loader_processes
from datasets.loader import Collate, Loader, ShardBatchSampler
from datasets.sample import SampleIndex
from util.errors import UserError
from util.structures import Target


class Images:
    """Grey images of 8x8 pixels; `act` is called with the number of each before it is given."""

    def __init__(self, act: Callable[[int], object] = lambda number: None) -> None:
        self.act = act

    def __getitem__(self, index: SampleIndex) -> tuple[torch.Tensor, Target]:
        self.act(index.image_index)
        target = Target(
            torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), index.image_index, (8, 8), (8, 8)
        )
        return torch.full((3, 8, 8), index.image_index, dtype=torch.uint8), target

    def damaged_names(self) -> list[str]:
        return []

    def missing_names(self) -> list[str]:
        return []

    def report(self) -> None:
        pass


@pytest.fixture
def loader_of(monkeypatch):
    monkeypatch.setattr("datasets.loader.POLL", 0.2)
    monkeypatch.setattr(loader_processes, "ROOM_PATIENCE", 0.3)
    return lambda images, workers: Loader(
        images, ShardBatchSampler(12, 2), collate=Collate(), workers=workers
    )


def send(wanted: int, what: int) -> Callable[[int], object]:
    """Sends a signal to the process that reads an image."""
    return lambda number: os.kill(os.getpid(), what) if number == wanted else None


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (send(5, signal.SIGKILL), "one of 2, was killed by SIGKILL: .* out of memory"),
        (send(5, signal.SIGUSR2), "one of 2, was killed by SIGUSR2"),
        (lambda number: os._exit(3) if number == 5 else None, "one of 2, ended with status 3"),
    ],
)
def test_a_loader_process_that_dies_is_one_line(loader_of, act, said):
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(UserError, match=rf"^loader process \d+, {said}"):
        list(loader_of(Images(act), 2))
    # An error must come from the loader alone, not from wherever the main thread is.
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_loader_processes_that_give_nothing_are_not_waited_for_without_end(loader_of):
    loader = loader_of(Images(send(5, signal.SIGSTOP)), 2)
    loader._processes._patience = 0.5
    with pytest.raises(UserError, match=r"^no batch for 0 s from 2 loader processes, though they run"):
        list(loader)


def test_full_shared_memory_is_one_line(loader_of, monkeypatch):
    def no_room(tensor):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", no_room)
    with pytest.raises(UserError, match=r"^/dev/shm has no room for a batch .*--num_workers.*--shm-size"):
        list(loader_of(Images(), 2))
    # Nothing goes through it without loader processes.
    assert len(list(loader_of(Images(), 0))) == 6


def test_no_memory_is_one_line(loader_of):
    def act(number: int) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^no memory for a batch of images"):
            list(loader_of(Images(act), workers))


def test_processes_that_persist_are_watched_in_later_epochs(loader_of, tmp_path):
    mark = tmp_path / "second epoch"
    loader = loader_of(Images(lambda n: os.kill(os.getpid(), signal.SIGKILL) if mark.exists() else None), 1)
    assert [batch[1].image_ids for batch in loader] == [(i, i + 1) for i in range(0, 12, 2)]
    mark.touch()
    with pytest.raises(UserError, match="one of 1, was killed by SIGKILL"):
        list(loader)
