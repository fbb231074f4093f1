import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engine.run_lock import Owner, RunLock
from tests.source_files import ROOT
from util.errors import UserError

ELSEWHERE = Owner("node7", 4711, "node7 another-boot", "99", "0123")
# Takes the lock, as a training process does that has loader processes.
HOLDER = """
import os, sys, time
from pathlib import Path
from engine.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]), beat=0.1)
lock.acquire()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run.lock"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen]:
    """A process that has the lock. It, and its child, are killed at the end."""
    words = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def left_by(owner: Owner, path: Path, age: float) -> None:
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age,) * 2)


def test_it_is_given_back(path):
    for _ in range(2):
        lock = RunLock(path)
        lock.acquire()
        assert json.loads(path.read_text())["pid"] == os.getpid()
        lock.release()
    assert list(path.parent.iterdir()) == []


def test_a_second_process_gets_one_line_and_a_killed_one_is_no_obstacle(path, caplog):
    with holder(path) as process:
        with pytest.raises(UserError) as caught:
            RunLock(path).acquire()
        assert caught.match(rf"another run, pid {process.pid} on .+, trains in .+, last seen \d seconds ago$")
        process.kill()
        process.wait()
        # Its child lives on, as loader processes do for seconds; the heartbeat is fresh.
        lock = RunLock(path)
        lock.acquire()
        assert f"took over from pid {process.pid} on " in caplog.text and ", which is gone" in caplog.text
        lock.release()
    assert list(path.parent.iterdir()) == []


def test_a_stopped_process_is_not_dead_but_a_zombie_is(path, caplog):
    with holder(path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match="another run, pid"):
            RunLock(path, beat=0.1, stale=0.0).acquire()
        process.kill()
        deadline = time.monotonic() + 60
        while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":  # nobody waited for it yet
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock = RunLock(path)
        lock.acquire()
        lock.release()


def test_a_later_process_with_the_same_number_is_another(path, caplog):
    left_by(replace(Owner.this_process(), started="1"), path, 0)
    lock = RunLock(path)
    lock.acquire()
    assert "which is gone" in caplog.text
    lock.release()


def test_on_another_machine_the_age_of_the_heartbeat_decides(path, caplog):
    left_by(ELSEWHERE, path, 100)
    lock = RunLock(path, stale=60)
    lock.acquire()
    assert "took over from pid 4711 on node7, silent for 10" in caplog.text
    lock.release()


def test_an_owner_elsewhere_is_waited_for(path, caplog):
    left_by(ELSEWHERE, path, 0)
    lock = RunLock(path, beat=0.1, stale=0.5)
    lock.acquire()
    assert "silent for" in caplog.text
    lock.release()


def test_an_owner_elsewhere_that_beats_is_alive(path):
    left_by(ELSEWHERE, path, 0)
    beats = threading.Timer(0.5, os.utime, [path])
    beats.start()
    with pytest.raises(UserError, match="another run, pid 4711 on node7, trains in"):
        RunLock(path, beat=0.1, stale=600).acquire()
    beats.join()
    assert json.loads(path.read_text())["pid"] == 4711


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": 3}', "\0\xff"])
def test_a_file_that_names_nobody_grows_stale_too(path, text, caplog):
    path.write_text(text)
    os.utime(path, (1, 1))
    lock = RunLock(path)
    lock.acquire()
    assert "took over from pid 0 on an unknown host" in caplog.text
    lock.release()
    assert list(path.parent.iterdir()) == []


def test_one_of_many_takes_a_stale_lock_over(path):
    left_by(ELSEWHERE, path, 100)
    locks, refused = [RunLock(path, beat=0.05) for _ in range(16)], []

    def take(lock: RunLock) -> None:
        try:
            lock.acquire()
        except UserError:
            refused.append(lock)

    threads = [threading.Thread(target=take, args=[lock]) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 15
    for lock in locks:
        lock.release()
    assert list(path.parent.iterdir()) == []


def test_a_stale_lock_is_claimed_by_one_process_at_a_time(path):
    left_by(ELSEWHERE, path, 100)
    claim = path.with_name("run.lock.0123.claim")
    claim.touch()
    seen = (ELSEWHERE, path.stat().st_mtime)
    assert not RunLock(path)._take_over(*seen, "which is gone")
    assert json.loads(path.read_text())["pid"] == ELSEWHERE.pid
    # One that a killed process has left is in nobody's way for long.
    os.utime(claim, (1, 1))
    lock = RunLock(path)
    lock.acquire()
    lock.release()
    assert list(path.parent.iterdir()) == []


def test_claims_on_earlier_owners_are_removed(path):
    left_by(ELSEWHERE, path, 100)
    path.with_name("run.lock.4567.claim").touch()
    lock = RunLock(path)
    lock.acquire()
    assert list(path.parent.iterdir()) == [path]
    lock.release()


def test_who_found_a_lock_stale_too_late_leaves_it(path):
    left_by(ELSEWHERE, path, 100)
    seen = (ELSEWHERE, path.stat().st_mtime)
    first = RunLock(path)
    first.acquire()
    assert not RunLock(path)._take_over(*seen, "which is gone")
    assert json.loads(path.read_text())["token"] == first.owner.token
    first.release()


def test_it_works_without_hard_links(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    lock = RunLock(path)
    lock.acquire()
    with pytest.raises(UserError, match="another run"):
        RunLock(path).acquire()
    lock.release()


def test_the_heartbeat_is_seen_and_mends_a_file_that_was_removed(path):
    lock = RunLock(path, beat=0.05)
    lock.acquire()
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 60
    while path.stat().st_mtime < 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    path.unlink()
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.release()
    assert list(path.parent.iterdir()) == []


def test_a_process_that_lost_its_lock_ends(path):
    with holder(path) as process:
        left_by(ELSEWHERE, path.with_name("other"), 0)
        os.replace(path.with_name("other"), path)
        assert process.wait(60) == 1
        line = process.stderr.readline()
        assert line.startswith("error: this process was silent too long, and another run, pid 4711 on node7,")


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"absent/run.lock: cannot be made \(No such file or directory\)"):
        RunLock(tmp_path / "absent" / "run.lock").acquire()
