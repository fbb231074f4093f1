"""All live config keys, one file per topic."""

from dataclasses import dataclass

from config.keys.data import DataKeys
from config.keys.losses import LossKeys, SemanticKeys
from config.keys.model import ModelKeys
from config.keys.training import TrainingKeys

# `dump` and docs/configuration.md use this order.
SECTIONS: dict[str, type] = {
    "Data": DataKeys,
    "Model": ModelKeys,
    "Losses": LossKeys,
    "Semantics": SemanticKeys,
    "Training": TrainingKeys,
}


@dataclass(frozen=True, kw_only=True)
class Keys(TrainingKeys, SemanticKeys, LossKeys, ModelKeys, DataKeys):
    """Every live key in one flat class; defaults are the values of the official `richsem_4scale`."""

    @property
    def image_level_epochs(self) -> tuple[int, int]:
        """The first epoch with image-level batches, counted from 0, and the first one after them."""
        start = self.image_level_start
        # Not the last one below a share such as 2 / 3 of 12.
        first = int(start * self.epochs + 1e-6) if start < 1 else int(start)
        return first, min(self.image_level_end or self.epochs, self.epochs)
