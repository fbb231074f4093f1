"""Names a rank that does not answer: a thread in each rank, and their heartbeats in torchrun's store.

A collective that waits for such a rank cannot tell which one it is, and NCCL's end the process without a
line. `torch.distributed.monitored_barrier` could tell, but only at a barrier, at the price of one in every
step, and by gloo.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence

from torch.distributed import Store

# Seconds between heartbeats: a tenth of the limit, but at most this.
LONGEST_BEAT = 10.0
_DONE = "done"


class RankWatch:
    """Heartbeats of this rank, and an eye on those of the others.

    store: a connection of its own, since a waiting call blocks a connection.  limit: seconds without a
    heartbeat after which a rank counts as hung. The first rank that still answers then names it, and ends.
    """

    def __init__(self, store: Store, rank: int, world_size: int, limit: float) -> None:
        self.store, self.rank, self.limit = store, rank, limit
        self.keys = [f"heartbeat/{r}" for r in range(world_size)]
        self.beat = min(LONGEST_BEAT, limit / 10)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank watch", daemon=True)
        store.set(self.keys[rank], "0")

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
        count, now = 0, time.monotonic()
        changed, seen = [now] * len(self.keys), [b""] * len(self.keys)
        while not self._ended.wait(self.beat):
            count += 1
            self.store.set(self.keys[self.rank], str(count))
            found = self.store.multi_get(self.keys)
            last, now = now, time.monotonic()
            # A process that stood still itself cannot tell how long others did.
            asleep = now - last > 3 * self.beat
            for rank, value in enumerate(found):
                if asleep or value != seen[rank] or value == _DONE.encode():
                    changed[rank], seen[rank] = now, value
            silent = [rank for rank, at in enumerate(changed) if now - at > self.limit]
            if silent and self.rank == min(set(range(len(self.keys))) - set(silent)):
                self._give_up(silent, now - min(changed))

    def _give_up(self, silent: Sequence[int], seconds: float) -> None:
        ranks = f"rank {silent[0]} has" if len(silent) == 1 else f"ranks {', '.join(map(str, silent))} have"
        print(f"error: {ranks} not answered for {round(seconds)} s", file=sys.stderr, flush=True)
        # The main thread waits in a collective that never ends.
        os._exit(1)
