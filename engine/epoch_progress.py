"""What the log knows of an epoch that has no line yet; a checkpoint within the epoch keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.loss_buffer import Averages, LossBuffer
from util import distributed


@dataclass
class EpochProgress:
    """epoch: losses up to the last line, over all ranks, the same on every rank.
    window: this rank's losses since then.
    seconds: spent on training in this epoch.
    """

    epoch: Averages = field(default_factory=Averages)
    window: LossBuffer = field(default_factory=LossBuffer)
    seconds: float = 0.0

    def state(self, epoch: int) -> dict[str, Any]:
        """Plain data, of every rank; called on every rank. epoch: its number from 1, for messages.

        Raises UserError where a loss was not finite.
        """
        own = self.window.settle(epoch)
        windows = distributed.all_gather_object(own.state())
        return {"seconds": self.seconds, "epoch": self.epoch.state(), "windows": windows}

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> EpochProgress:
        """The reverse, on this rank. With another number of ranks the first one has all windows."""
        if not saved:
            return cls()
        windows = [Averages(**window) for window in saved["windows"]]
        if len(windows) != distributed.world_size():
            first = Averages()
            for window in windows:
                first.merge(window)
            windows = [first, *(Averages() for _ in range(distributed.world_size() - 1))]
        own = windows[distributed.rank()]
        return cls(Averages(**saved["epoch"]), LossBuffer(own), float(saved["seconds"]))
