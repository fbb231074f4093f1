"""Names a rank that hangs: a thread in each rank, and their heartbeats in torchrun's store.

A collective that waits for such a rank cannot tell which one it is, and NCCL's end the process without a
line. `torch.distributed.monitored_barrier` could tell, but only at a barrier, at the price of one in every
step, and by gloo.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from torch.distributed import Store

# Seconds between heartbeats: a tenth of the limit, but at most this.
LONGEST_BEAT = 10.0
_DONE = "done"
_ROOT = str(Path(__file__).resolve().parents[1]) + os.sep
_WAITING = "waiting"


class RankWatch:
    """Heartbeats of this rank, and an eye on those of the others.

    A rank hangs when its process does not answer for `limit` seconds, or when another one has waited for that
    long in a collective and it is elsewhere. The first rank that answers then names it, and ends.

    store: a connection of its own, since a waiting call blocks a connection.
    progress: changes with every step.  place: see `main_thread_place`.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        limit: float,
        progress: Callable[[], int],
        place: Callable[[], str] | None = None,
    ) -> None:
        self.store, self.rank, self.limit, self.progress = store, rank, limit, progress
        self.place = place or main_thread_place
        self.keys = [f"heartbeat/{r}" for r in range(world_size)]
        self.beat = min(LONGEST_BEAT, limit / 10)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank watch", daemon=True)
        store.set(self.keys[rank], "0 ")

    def start(self) -> None:
        """Once every rank has made its own."""
        self._thread.start()

    def end(self) -> None:
        """This rank leaves in order: nobody is to wait for it."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            self._beat_and_look()
            self.store.set(self.keys[self.rank], _DONE)
        except RuntimeError:  # the store is gone with torchrun's agent, which takes its ranks along
            return

    def _beat_and_look(self) -> None:
        count, now, step = 0, time.monotonic(), self.progress()
        changed, seen, moved = [now] * len(self.keys), [""] * len(self.keys), now
        while not self._ended.wait(self.beat):
            count += 1
            place = self.place()
            self.store.set(self.keys[self.rank], f"{count} {place}")
            found = [value.decode() for value in self.store.multi_get(self.keys)]
            last, now = now, time.monotonic()
            # A process that stood still itself cannot tell how long others did.
            asleep = now - last > 3 * self.beat
            for rank, value in enumerate(found):
                if asleep or value != seen[rank] or value == _DONE:
                    changed[rank], seen[rank] = now, value
            if asleep or place != _WAITING or step != self.progress():
                moved, step = now, self.progress()
            silent = [rank for rank, at in enumerate(changed) if now - at > self.limit]
            if silent:
                self._name(silent, f"not answered for {round(now - min(changed))} s")
            elif now - moved > self.limit:
                self._name_absent([value.partition(" ")[2] for value in found], round(now - moved))

    def _name_absent(self, places: list[str], seconds: int) -> None:
        """places: of every rank. At least this one waits."""
        absent = [rank for rank, place in enumerate(places) if place != _WAITING]
        where = f", but been at {places[absent[0]]}" if absent and places[absent[0]] else ""
        self._name(absent, f"not come to where others have waited for {seconds} s{where}")

    def _name(self, ranks: list[int], what: str) -> None:
        """Ends this process, if it is the first that can: the main thread waits without end."""
        others = sorted(set(range(len(self.keys))) - set(ranks))
        if self.rank != others[0]:
            return
        named = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} have"
        self._give_up(f"error: {named if ranks else 'the ranks have'} {what}")

    def _give_up(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        os._exit(1)


def main_thread_place() -> str:
    """Where the main thread is: 'waiting' in a collective, else 'FILE:LINE', its innermost line of ours."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return ""
    innermost = frame.f_code.co_filename.replace(os.sep, "/")
    if "/torch/distributed/" in innermost or innermost.endswith("/torch/autograd/graph.py"):
        return _WAITING
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_ROOT) and "site-packages" not in name:
            return f"{name.removeprefix(_ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
