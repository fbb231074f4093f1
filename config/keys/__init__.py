"""The live keys, one file per role, and all of them together."""

from dataclasses import dataclass

from config.keys.data import DataKeys
from config.keys.losses import LossKeys, SemanticKeys
from config.keys.model import ModelKeys
from config.keys.training import TrainingKeys

# Shown in this order by `dump` and in the documentation.
SECTIONS: dict[str, type] = {
    "Data": DataKeys,
    "Model": ModelKeys,
    "Losses": LossKeys,
    "Semantics": SemanticKeys,
    "Training": TrainingKeys,
}


@dataclass(frozen=True, kw_only=True)
class Keys(TrainingKeys, SemanticKeys, LossKeys, ModelKeys, DataKeys):
    """Every live key, flat, with the value of the official `richsem_4scale` as its default."""
