"""Promises broken on purpose: each must be reported as lost by the suite, or the suite proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Plant = dict[str, Callable[[Any], None]]


def _set(owner: str, name: str, value: Any) -> Callable[[Any], None]:
    def plant(module: Any) -> None:
        setattr(getattr(module, owner) if owner else module, name, value)

    return plant


@contextmanager
def _in_place(path: Path, *, durable: bool = True) -> Iterator[Path]:
    yield path


def _draws(module: Any) -> None:
    """Loader processes are seeded from the generator that the model draws from, as torch does it."""

    class Drawing(module.DataLoader):
        def __init__(self, *arguments: Any, generator: Any = None, **named: Any) -> None:
            super().__init__(*arguments, **named)

    module.DataLoader = Drawing


def _no_epoch_line(module: Any) -> None:
    """The line is lost where a run goes on after its evaluation's checkpoint."""
    covers = module.LogPosition.covers
    module.LogPosition.covers = lambda self, entry: entry.get("kind") != "epoch" and covers(self, entry)


def _no_average(module: Any) -> None:
    restore = module.TrainingState.restore

    def forgetful(self: Any, checkpoint: Any) -> None:
        restore(self, checkpoint)
        if self.ema is not None:
            self.ema.set(self.model)

    module.TrainingState.restore = forgetful


# Name -> module -> what is done to it when it is imported.
PLANTS: dict[str, Plant] = {
    "no-epoch-line": {"engine.run_log": _no_epoch_line},
    "torn-checkpoint": {"util.checkpoint": _set("", "atomic_path", _in_place)},
    "forget-rng": {"engine.state": _set("", "load_random_state", lambda state: None)},
    "forget-average": {"engine.state": _no_average},
    "workers-draw": {"datasets.loader": _draws},
    "no-lock": {"engine.run_lock": _set("RunLock", "_wait_and_take", lambda self: None)},
    "no-checksum": {"util.torch_file": _set("", "check_zip", lambda *_: True)},
    "orphans": {"util.lifetime": _set("", "die_with_parent", lambda parent: None)},
}
