"""The rows of the long suite: faults, and how often each is tried."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product
from pathlib import Path

from tests.faults import hazards
from tests.faults.bench import Bench, Setting
from tests.faults.inject import POINTS
from tests.faults.trial import Stop, TooLateError, Trial

RUNS_TOO_LATE = 5


@dataclass
class Context:
    """What trials share. plant: a promise that their runs break, never those they are compared with."""

    bench: Bench
    plant: str = ""
    kills: int = 0
    redone: list[int] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _wholes: dict[Setting, Path] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def trial(self, setting: Setting) -> Trial:
        return Trial(self.bench, setting, f"trial{next(self._numbers)}", self.plant)

    def whole(self, setting: Setting) -> Path:
        """A run with these options that nothing stopped; loader processes make no difference."""
        setting = replace(setting, workers=0)
        with self._lock:
            if setting not in self._wholes:
                trial = Trial(self.bench, setting, f"whole{len(self._wholes)}")
                process = trial.start()
                assert process.wait() == 0, process.printed()[-2000:]
                self._wholes[setting] = trial.run
            return self._wholes[setting]

    def done(self, trial: Trial, kills: int) -> None:
        """Counts what a trial did. Trials run side by side."""
        with self._lock:
            self.kills += kills
            self.redone += trial.redone


Try = Callable[[Context], None]


@dataclass(frozen=True)
class Row:
    """fault: its name in the table. tries: each raises AssertionError where the promise is lost."""

    fault: str
    tries: Sequence[Try]


def stopped(setting: Setting, draw: Callable[[], Sequence[Stop]], *more: str) -> Try:
    """Stops a run by each of the stops that `draw` gives; the same command then finishes it."""

    def attempt(context: Context) -> None:
        whole = context.whole(setting)
        for _ in range(RUNS_TOO_LATE):
            trial, kills = context.trial(setting), 0
            for stop in draw():
                try:
                    trial.stop(stop, *more)
                    kills += 1
                except TooLateError:
                    break
            trial.finish(whole)
            context.done(trial, kills)
            if kills:
                return
        raise AssertionError("every run had ended before it was stopped")

    return attempt


def exactly(setting: Setting, *stops: Stop) -> Try:
    return stopped(setting, lambda: stops)


def at_random(random_numbers: random.Random, setting: Setting, stop: Stop, most: int) -> Try:
    """Two stops, each after a number of steps below `most` and a part of a second.

    Each trial has its own numbers: the same whatever else runs, and in whatever order.
    """
    own = random.Random(random_numbers.random())

    def draw() -> list[Stop]:
        steps = [own.randrange(most), own.randrange(most // 2)]
        return [replace(stop, steps=count, delay=own.uniform(0, 0.15 if count else 1.5)) for count in steps]

    return stopped(setting, draw)


def random_rows(numbers: random.Random) -> list[Row]:
    """One rank: signals x loader processes x accumulation x interval. Two: signals, and who gets them."""
    rows = []
    for name in ("KILL", "TERM", "INT", "HUP", "USR1"):
        settings = [
            Setting(workers=workers, accumulate=accumulate, save_interval=interval)
            for workers, accumulate, interval in product((0, 1, 2), (1, 3), (0, 2))
        ]
        most = {1: 16, 3: 6}
        tries = [at_random(numbers, s, Stop(name), most[s.accumulate]) for s in settings]
        rows.append(Row(f"SIG{name} at random times, one rank", tries))
    two = [Setting(2, 0, 1, 2), Setting(2, 1, 3, 0), Setting(2, 2, 1, 0)]
    for fault, stop in (
        ("SIGKILL of a rank at random times, two ranks", Stop(rank=0)),
        ("SIGKILL of the launcher at random times, two ranks", Stop(rank=-1)),
        ("SIGTERM at random times, two ranks", Stop("TERM", rank=-1)),
        ("SIGINT at random times, two ranks", Stop("INT", rank=-1)),
        ("SIGHUP at random times, two ranks", Stop("HUP", rank=-1)),
        ("SIGUSR1 at random times, two ranks", Stop("USR1", rank=-1)),
    ):
        tries = []
        for number, setting in enumerate(two):
            # Ranks in turn, where it is a rank.
            own = replace(stop, rank=number % 2) if stop.rank == 0 else stop
            tries.append(at_random(numbers, setting, own, 16 if setting.accumulate == 1 else 6))
        rows.append(Row(fault, tries))
    return rows


def exact_rows() -> list[Row]:
    """Each point at the first start, where it is on its way, and at a restart; and some on two ranks."""
    rows = []
    before = Stop(point="half a checkpoint", number=2)
    for point in POINTS:
        tries = [exactly(Setting(workers=1), before, Stop(point=point))]
        if point not in hazards.AT_A_RESTART:
            tries.append(exactly(Setting(accumulate=3), Stop(point=point)))
            tries.append(exactly(Setting(workers=2), Stop(point=point, number=_second(point))))
        rows.append(Row(f"killed {point}", tries))
    two = [
        ("half a checkpoint", 0),
        ("between best and latest", 0),
        ("before an epoch line", 0),
        ("after a step", 1),
    ]
    tries = [
        exactly(Setting(ranks=2), Stop(point=point, rank=rank, number=_second(point))) for point, rank in two
    ]
    return [*rows, Row("SIGKILL at exact points, two ranks", tries)]


def _second(point: str) -> int:
    """The second time at a point, or the only one: the AP of so short a run never rises."""
    return 1 if "best" in point else 2


def time_limit(minutes: float) -> Try:
    """A run whose time is over writes a checkpoint and ends with 0."""

    def attempt(context: Context) -> None:
        setting = Setting(save_interval=0)
        whole, trial = context.whole(setting), context.trial(setting)
        process = trial.start(None, "--time_limit", str(minutes))
        assert process.wait() == 0, process.printed()[-2000:]
        assert "stopped at step" in process.printed(), process.printed()[-2000:]
        trial.check_fresh(process)
        trial.finish(whole)
        context.done(trial, 1)

    return attempt


def all_rows(numbers: random.Random) -> list[Row]:
    return [
        *random_rows(numbers),
        Row("time limit", [time_limit(minutes) for minutes in (0.001, 0.01, 0.015)]),
        *exact_rows(),
        *(Row(fault, tries) for fault, tries in hazards.HAZARDS.items()),
    ]
