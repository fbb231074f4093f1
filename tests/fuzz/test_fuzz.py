"""Damaged files by the hundred, for every reader: each is read, or refused in one line."""

import os
import random
import signal
import warnings
from pathlib import Path

import pytest

from tests.fuzz import caches as caches  # more readers
from tests.fuzz import images as images
from tests.fuzz import layouts as layouts
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import READERS
from tests.network import asked as asked  # a fixture
from util.errors import UserError

# Seconds of the default run of each reader, and of one input before it counts as hanging.
SECONDS, PATIENCE = 0.15, 60
MOST, LEAST = 60, 5


def _hangs(*_: object) -> None:
    raise TimeoutError(f"no answer in {PATIENCE} seconds")


def run(name: str, folder: Path, count: int, seed: int) -> dict[str, int]:
    """How many inputs were read and refused. Raises AssertionError naming the first that was neither."""
    reader, rng = READERS[name], random.Random(seed)
    base = folder / "base"
    base.mkdir(parents=True)
    whole = reader.whole(base)
    path = base / reader.name
    path.write_bytes(whole)
    right = reader.use(path) if reader.readable else None
    found = {"read": 0, "refused": 0}
    before = signal.signal(signal.SIGALRM, _hangs)
    try:
        for number in range(count):
            content = mutate(whole, rng)
            path.write_bytes(content)
            signal.alarm(PATIENCE)
            try:
                result = reader.use(path)
                assert not reader.exact or result == right, "damaged data served as good"
                found["read"] += 1
            except UserError as error:
                message = str(error)
                assert "\n" not in message and len(message) < 1500 and "weights_only" not in message
                found["refused"] += 1
            except Exception as error:
                kept = folder / f"{number}-{reader.name}"
                kept.write_bytes(content)
                raise AssertionError(
                    f"{name}, input {number} of seed {seed} (kept as {kept}): {error!r:.300}"
                ) from error
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    return found


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path, asked):
    """No network, no cache of the user's, no warnings about every damaged file."""
    monkeypatch.setenv("RICHSEM_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path, asked):
    count = max(LEAST, min(MOST, int(SECONDS / READERS[name].cost)))
    assert sum(run(name, tmp_path, count, seed=0).values()) == count
    assert asked == []


@pytest.mark.ci
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files(name, tmp_path):
    """`RICHSEM_FUZZ_INPUTS` of each kind, from `RICHSEM_FUZZ_SEED` on."""
    count = int(os.environ.get("RICHSEM_FUZZ_INPUTS", "300"))
    seed = int(os.environ.get("RICHSEM_FUZZ_SEED", "1"))
    found = run(name, tmp_path, count, seed)
    assert found["read"] + found["refused"] == count
    print(f"{name}: {found['read']} read, {found['refused']} refused")


def test_the_mutations_differ_and_repeat():
    whole = b'{"a": [1, 2, {"b": "text"}]}'
    first, again = ([mutate(whole, random.Random(seed)) for seed in range(50)] for _ in range(2))
    assert first == again and len(set(first)) > 30 and whole not in first[:10]


def test_what_is_neither_read_nor_refused_is_found(tmp_path, monkeypatch):
    def use(path: Path) -> None:
        if b"cup" not in path.read_bytes():
            raise KeyError("cup")

    monkeypatch.setitem(READERS, "words", type(READERS["words"])("w.txt", lambda _: b"cup cup cup", use))
    with pytest.raises(AssertionError, match=r"words, input \d+ of seed 0 .*KeyError"):
        run("words", tmp_path, 200, 0)
