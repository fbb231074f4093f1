import itertools
import os
import re
import subprocess
import sys
import threading
import time

import pytest
from torch import distributed as dist

from tests.source_files import ROOT
from util.rank_watch import RankWatch, main_thread_place


class Recording(RankWatch):
    """Ranks of one process: the one that would speak and end its process is noted here, with its line."""

    def __init__(self, store: dist.Store, rank: int, size: int, spoken: list, place: str = "") -> None:
        super().__init__(store, rank, size, 0.5, lambda: 0, lambda: place)
        self.spoken = spoken

    def _give_up(self, line: str) -> None:
        self.spoken.append((self.rank, line))
        self._ended.set()


@pytest.fixture
def connect():
    """Makes connections to a store, as each rank has one."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return lambda: dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)


def first_words(found: list) -> tuple[int, str]:
    """Who spoke first, and the line."""
    deadline = time.monotonic() + 60
    while not found:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


@pytest.mark.parametrize(
    ("hung", "speaker", "words"),
    [([1], 0, "rank 1 has"), ([0], 1, "rank 0 has"), ([0, 2], 1, "ranks 0, 2 have")],
)
def test_the_first_rank_that_answers_names_those_that_do_not(hung, speaker, words, connect):
    found = []
    watches = [Recording(connect(), rank, 3, found) for rank in range(3)]
    for watch in watches:
        if watch.rank not in hung:
            watch.start()
    rank, line = first_words(found)
    assert rank == speaker and re.fullmatch(rf"error: {words} not answered for \d+ s", line)
    for watch in watches:
        watch._ended.set()


@pytest.mark.parametrize(
    ("places", "speaker", "words"),
    [
        (["waiting", "a.py:7"], 0, r"rank 1 has not come to .* waited for \d+ s, but been at a.py:7"),
        (["a.py:7", "waiting"], 1, r"rank 0 has not come to .* waited for \d+ s, but been at a.py:7"),
        (["waiting", "waiting"], 0, r"the ranks have not come to where others have waited for \d+ s"),
    ],
)
def test_a_rank_that_others_wait_for_is_named_with_its_place(places, speaker, words, connect):
    found = []
    watches = [Recording(connect(), rank, 2, found, place) for rank, place in enumerate(places)]
    for watch in watches:
        watch.start()
    rank, line = first_words(found)
    assert rank == speaker and re.fullmatch(f"error: {words}", line)
    for watch in watches:
        watch._ended.set()


def test_waiting_between_steps_is_not_hanging(connect):
    found, steps = [], itertools.count()
    watches = [Recording(connect(), rank, 2, found, "waiting") for rank in range(2)]
    for watch in watches:
        watch.progress = steps.__next__
        watch.start()
    time.sleep(1.5)
    for watch in watches:
        watch.end()
    assert found == []


def test_the_place_of_the_main_thread_is_a_line_of_ours():
    places = []
    thread = threading.Thread(target=lambda: places.append(main_thread_place()))
    thread.start()
    thread.join()
    assert re.fullmatch(r"tests/util/test_rank_watch.py:\d+", places[0])


@pytest.mark.ci
def test_a_rank_whose_main_thread_hangs_is_named(tmp_path):
    program = tmp_path / "rank.py"
    program.write_text(
        "import time\nfrom datetime import timedelta\nfrom util import distributed\n"
        "distributed.setup('cpu', timeout=timedelta(seconds=3))\n"
        "distributed.barrier()\n"
        "if distributed.rank() == 1: time.sleep(600)\n"
        "distributed.barrier()\n"
    )
    words = [sys.executable, "-m", "tools.launch", "2", str(program)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    line = r"error: rank 1 has not come to where others have waited for \d+ s\n"
    assert re.fullmatch(line, done.stderr)


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
