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
