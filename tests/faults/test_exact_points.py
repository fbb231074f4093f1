"""Runs that are killed at exact points and at random ones end as the run that never stopped."""

import random
from pathlib import Path

import pytest

from tests.faults.bench import Bench, Setting
from tests.faults.inject import POINTS
from tests.faults.trial import Stop, TooLateError, Trial
from tests.faults.zygote import Zygote

SETTING = Setting()
# Each in a run of its own; the other points are tried by those marked `ci`.
FEW = [
    ("half a checkpoint", 2),
    ("between best and latest", 1),
    ("half a log line", 4),
    ("before an epoch line", 1),
]
# The claim of a process that was killed within it counts for a minute.
SLOW = ("before a folder is taken over", "after a folder is taken over")
OTHERS = [(point, 1) for point in POINTS if point not in dict(FEW) and point not in SLOW]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    bench = Bench.made(folder)
    bench.zygote = Zygote(folder / "zygote")
    yield bench
    bench.zygote.close()


@pytest.fixture(scope="module")
def whole(bench) -> Path:
    """A run that nothing stops."""
    trial = Trial(bench, SETTING, "whole")
    process = trial.start()
    assert process.wait() == 0, process.printed()
    assert process.trace.steps == list(range(1, 17))
    return trial.run


@pytest.mark.parametrize(("point", "number"), FEW)
def test_killed_at_an_exact_point(bench, whole, point, number):
    trial = Trial(bench, SETTING, point)
    trial.stop(Stop(point=point, number=number))
    trial.finish(whole)


@pytest.mark.ci
@pytest.mark.parametrize(("point", "number"), OTHERS)
def test_killed_at_any_exact_point(bench, whole, point, number):
    trial = Trial(bench, SETTING, point)
    # What belongs to a restart needs a run before it, with a log line that is later than its checkpoint.
    trial.stop(Stop(point="half a checkpoint", number=2))
    trial.stop(Stop(point=point, number=number))
    trial.finish(whole)


def test_killed_at_random(bench, whole):
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    trial = Trial(bench, SETTING, f"random {seed}")
    for _ in range(2):
        try:
            trial.stop(Stop(steps=draw.randrange(8), delay=draw.uniform(0, 0.2)))
        except TooLateError:
            continue
    trial.finish(whole)
