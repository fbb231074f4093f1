import threading
import time
from collections.abc import Sequence

import pytest
from torch import distributed as dist

from util.rank_watch import RankWatch


class Recording(RankWatch):
    """Ranks of one process: the one that would speak and end its process says so here."""

    def __init__(self, store: dist.Store, rank: int, size: int, spoken: list) -> None:
        super().__init__(store, rank, size, limit=0.5)
        self.spoken = spoken

    def _give_up(self, silent: Sequence[int], seconds: float) -> None:
        self.spoken.append((self.rank, list(silent)))
        self._ended.set()


@pytest.fixture
def connect():
    """Makes connections to a store, as each rank has one."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return lambda: dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)


@pytest.mark.parametrize(
    ("hung", "spoken"), [([1], (0, [1])), ([0], (1, [0])), ([0, 2], (1, [0, 2])), ([2, 3], (0, [2, 3]))]
)
def test_the_first_rank_that_answers_names_those_that_do_not(hung, spoken, connect):
    found = []
    watches = [Recording(connect(), rank, 4, found) for rank in range(4)]
    for watch in watches:
        if watch.rank not in hung:
            watch.start()
    deadline = time.monotonic() + 60
    while not found:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert found[0] == spoken
    for watch in watches:
        watch._ended.set()


def test_ranks_that_answer_or_have_left_are_not_named(connect):
    found = []
    watches = [Recording(connect(), rank, 3, found) for rank in range(3)]
    for watch in watches:
        watch.start()
    watches[1].end()
    time.sleep(1.5)
    for watch in (watches[0], watches[2]):
        watch.end()
    assert found == []


def test_it_ends_quietly_with_the_store():
    class Gone(dist.HashStore):
        def multi_get(self, keys):
            raise dist.DistNetworkError("connection reset by peer")

    problems = []
    watch = Recording(Gone(), 0, 1, [])
    hook, threading.excepthook = threading.excepthook, problems.append
    try:
        watch.start()
        watch._thread.join(60)
    finally:
        threading.excepthook = hook
    assert not watch._thread.is_alive() and problems == []
