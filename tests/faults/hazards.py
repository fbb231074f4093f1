"""Faults other than a stop: full disks, flipped bits, dead loader processes, hung ranks, damaged files."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.run_directory import RunDirectory
from engine.run_log import read_log
from tests.checkpoints import read_checkpoint
from tests.engine.test_resume import assert_equal, entries
from tests.faults.bench import Process, Setting, position
from tests.faults.trial import Stop, Trial
from tests.source_files import ROOT
from tests.test_restart import children

if TYPE_CHECKING:
    from tests.faults.rows import Context

Try = Callable[["Context"], None]

# Points that only a run that goes on comes to.
AT_A_RESTART = {
    "before later lines are set aside",
    "after later lines are set aside",
    "before a folder is taken over",
    "after a folder is taken over",
    "before a resume",
    "after a resume",
}


def one_line(process: Process, *said: str) -> None:
    """That the process ended with status 2 and these words, and without a traceback."""
    printed = process.printed()
    assert process.status == 2 and "Traceback" not in printed, f"{process.status}: {printed[-2000:]}"
    missing = [words for words in said if words not in printed]
    assert not missing, f"does not say {missing}: {printed[-2000:]}"


def two_runs_at_once(context: Context) -> None:
    """Of two that train in one folder one is refused; the other is not disturbed."""
    setting = Setting()
    whole, trial = context.whole(setting), context.trial(setting)
    first = trial.start()
    first.wait_for_steps(1)
    second = trial.start()
    second.wait()
    one_line(second, "another run")
    assert first.wait() == 0, first.printed()[-2000:]
    trial.check_same(whole)
    context.done(trial, 0)


def limit_files(process: Process, size: int) -> None:
    """From now on the process cannot make a file longer than this: as on a full disk."""
    for pid in process.processes():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full_disk_at_checkpoints(context: Context) -> None:
    """Checkpoints cannot be written: training goes on, the old one stays, and the same command finishes."""
    setting = Setting()
    whole, trial = context.whole(setting), context.trial(setting)
    process = trial.start()
    process.wait_for_steps(3)
    limit_files(process, 200_000)
    process.wait()
    found = position(trial.run)
    one_line(process, "cannot be written", "training goes on")
    assert found is not None and found < process.trace.steps[-1] == 16
    trial.finish(whole)
    context.done(trial, 0)


def full_disk_from_the_start(context: Context) -> None:
    """A file system of 1 MB is full at the first checkpoint, and in the evaluation: training goes on after
    the one and ends with the other. With room the same command starts over."""
    setting = Setting()
    whole, trial = context.whole(setting), context.trial(setting)
    trial.run.mkdir(parents=True)
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=1m none "{trial.run}" && exec "$@"', "sh"]
    process = trial.start(prefix=mount)
    process.wait()
    one_line(process, "checkpoint.pth: cannot be written", "No space left on device", "training goes on")
    assert process.trace.steps[-1] == 8
    trial.finish(whole)
    context.done(trial, 0)


def full_disk_at_log_lines(context: Context) -> None:
    """Lines that cannot be written are one warning and are missing; weights are those of a whole run."""
    setting = Setting()
    whole, trial = context.whole(setting), context.trial(setting)
    process = trial.start()
    process.wait_for_steps(4)
    log, kept = trial.run / "log.jsonl", trial.run / "kept"
    os.link(log, kept)
    (trial.run / "full").symlink_to("/dev/full")
    os.replace(trial.run / "full", log)
    process.wait_for_steps(8)
    os.replace(kept, log)
    assert process.wait() == 0, process.printed()[-2000:]
    warnings = re.findall(r"log\.jsonl: cannot be written", process.printed())
    assert len(warnings) == 1, process.printed()[-2000:]
    same_weights(trial, whole)
    lines = [(e["kind"], e["step"]) for e in read_log(RunDirectory(whole).log)]
    left = [(e["kind"], e["step"]) for e in read_log(log)]
    assert set(left) < set(lines) and left[-1] == lines[-1]
    context.done(trial, 0)


def same_weights(trial: Trial, whole: Path) -> None:
    expected, found = (entries(read_checkpoint(folder / "checkpoint.pth")) for folder in (whole, trial.run))
    assert_equal(expected, found)


def flipped_bit(place: float) -> Try:
    """A bit of `checkpoint.pth` flips, at this part of the file: it is noticed, and an older one is taken."""

    def attempt(context: Context) -> None:
        setting = Setting(options=("keep_checkpoints=2",))
        whole, trial = context.whole(setting), context.trial(setting)
        trial.stop(Stop(point="after a step", number=7))
        path = trial.run / "checkpoint.pth"
        damaged = bytearray(path.read_bytes())
        damaged[int(place * len(damaged))] ^= 4
        path.write_bytes(damaged)
        process = trial.start()
        assert process.wait() == 0, process.printed()[-2000:]
        assert re.search(r"checkpoint\.pth: damaged.*going on from", process.printed()), process.printed()
        same_weights(trial, whole)
        context.done(trial, 1)

    return attempt


def damaged_log(damage: Callable[[bytes], bytes]) -> Try:
    """Of lines that are damaged all others stay; the run goes on."""

    def attempt(context: Context) -> None:
        setting = Setting()
        whole, trial = context.whole(setting), context.trial(setting)
        trial.stop(Stop(point="after a step", number=13))
        log = trial.run / "log.jsonl"
        lines = log.read_bytes().split(b"\n")
        lines[1] = damage(lines[1])
        log.write_bytes(b"\n".join(lines))
        process = trial.start()
        assert process.wait() == 0, process.printed()[-2000:]
        assert "1 damaged lines stay" in process.printed(), process.printed()[-2000:]
        same_weights(trial, whole)
        assert lines[1] in log.read_bytes().split(b"\n")
        assert len(read_log(log)) == len(read_log(RunDirectory(whole).log)) - 1
        context.done(trial, 1)

    return attempt


def loader_process_killed(context: Context) -> None:
    """As by a system without memory: one line that names it, and the same command goes on."""
    setting = Setting(workers=2)
    whole, trial = context.whole(setting), context.trial(setting)
    process = trial.start()
    process.wait_for_steps(5)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    process.wait()
    one_line(process, "loader process", "SIGKILL")
    trial.finish(whole)
    context.done(trial, 1)


def small_shared_memory(context: Context) -> None:
    """200 kB of /dev/shm: fewer loader processes, said at once, and the same result; or one line about it,
    which goes for batches of a few kB, of which the pages of small tensors are the larger part. No wait."""
    setting = Setting(workers=2)
    whole, trial = context.whole(setting), context.trial(setting)
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=200k none /dev/shm && exec "$@"', "sh"]
    process = trial.start(prefix=mount)
    if process.wait(120):
        one_line(process, "error: /dev/shm has no room for a batch")
        trial.finish(whole)
    assert "/dev/shm has" in process.printed(), process.printed()[-2000:]
    trial.check_same(whole)
    context.done(trial, 0)


def hung_rank(context: Context) -> None:
    """A rank that stands still is named after --timeout; nothing is left, and the same command goes on."""
    setting = Setting(ranks=2)
    whole, trial = context.whole(setting), context.trial(setting)
    process = trial.start(None, "--timeout", "0.2")
    process.wait_for_steps(4)
    os.kill(process.pid_of(1), signal.SIGSTOP)
    assert process.wait() != 0
    assert "rank 1" in process.printed().splitlines()[-1], process.printed()[-2000:]
    trial.finish(whole)
    context.done(trial, 1)


def damaged_images(context: Context) -> None:
    """A run on data with damaged images is stopped and goes on as one that was not stopped."""
    data = context.bench.folder / f"damaged{time.monotonic_ns()}"
    shutil.copytree(context.bench.folder / "data", data)
    for name in ("train2017/000000000003.png", "val2017/000000000101.png"):
        path = data / "lvis_v1" / name
        path.write_bytes(path.read_bytes()[:100])
    more = ("--data_path", str(data))
    setting = Setting(options=("max_damaged_share=0.5",))
    whole, trial = context.trial(setting), context.trial(setting)
    assert (process := whole.start(None, *more)).wait() == 0, process.printed()[-2000:]
    trial.stop(Stop(point="after a step", number=11), *more)
    process = trial.start(None, *more)
    assert process.wait() == 0, process.printed()[-2000:]
    same_weights(trial, whole.run)
    damaged = [e["damaged"] for e in read_log(trial.run / "log.jsonl") if e["kind"] == "epoch"]
    assert damaged == [e["damaged"] for e in read_log(whole.run / "log.jsonl") if e["kind"] == "epoch"]
    context.done(trial, 1)


def own_tests(*words: str) -> Try:
    """Tests of the project that try the fault where it does its harm."""

    def attempt(context: Context) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]

    return attempt


HAZARDS: dict[str, Sequence[Try]] = {
    "two runs in one folder": [two_runs_at_once],
    "disk full at a checkpoint": [full_disk_at_checkpoints],
    "disk full from the start": [full_disk_from_the_start],
    "disk full at a log line": [full_disk_at_log_lines],
    "a flipped bit in a checkpoint": [flipped_bit(place) for place in (0.05, 0.2, 0.35, 0.5, 0.65, 0.8)],
    "a damaged log": [
        damaged_log(lambda line: line[: len(line) // 2]),
        damaged_log(lambda line: b"\xff\xfe" + line),
        damaged_log(lambda line: b"17"),
        damaged_log(lambda line: bytes(len(line))),
    ],
    "a loader process killed": [loader_process_killed],
    "little /dev/shm": [small_shared_memory],
    "a hung rank": [hung_rank],
    "damaged images": [damaged_images],
    "a stale or damaged tar index": [own_tests("tests/datasets/images/test_tar_index.py")],
    "damaged annotation caches": [own_tests("tests/datasets/annotations/test_cache.py")],
    "damaged text caches": [own_tests("tests/models/richsem/test_text_embeddings.py", "-k", "cache")],
    "a damaged kernel library": [own_tests("tests/models/dino/ops/test_damaged_library.py")],
}
