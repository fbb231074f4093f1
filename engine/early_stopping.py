"""When to stop because AP no longer rises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class EarlyStopping:
    """Counts evaluations since AP last rose; the same on every rank.

    patience: evaluations in a row without a rise after which training stops, 0 for never.
    min_delta: what counts as a rise is more than this above `reference`; 0..1, like AP.
    reference: AP at the last rise, None before the first evaluation that defines it.
    stale: evaluations since then.
    """

    patience: int = 0
    min_delta: float = 0.0
    reference: float | None = None
    stale: int = 0

    @property
    def reached(self) -> bool:
        """Whether training stops here."""
        return 0 < self.patience <= self.stale

    def add(self, ap: float) -> None:
        """One evaluation. ap: 0..1; below 0 it is undefined, which says nothing about a rise."""
        if ap < 0:
            return
        if self.reference is None or ap > self.reference + self.min_delta:
            self.reference, self.stale = ap, 0
        else:
            self.stale += 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; patience and min_delta come from the config."""
        return {"reference": self.reference, "stale": self.stale}

    def restore(self, saved: Mapping[str, Any], best_ap: float | None) -> None:
        """saved: a checkpoint's; where it is empty (an older file), counting begins at `best_ap`."""
        reference = saved.get("reference", best_ap)
        # Older checkpoints counted undefined APs, as -1.
        defined = reference is not None and reference >= 0
        self.reference, self.stale = (reference, int(saved.get("stale", 0))) if defined else (None, 0)

    def __str__(self) -> str:
        rise = f"rose by more than {100 * self.min_delta:g}" if self.min_delta else "rose"
        ago = f"{self.stale} evaluations ago, to {100 * (self.reference or 0):.2f}"
        return f"AP last {rise} {ago} (early_stop_patience={self.patience})"
