"""Seeds, and the state of every random number generator as plain data."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seeds Python, NumPy and torch; each rank draws its own numbers."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)  # noqa: NPY002 - libraries below us draw from the global generator
    torch.manual_seed(seed + rank)


def model_random_state() -> dict:
    """Of the generators that a model draws from."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def load_model_random_state(state: Mapping[str, Any]) -> None:
    """The reverse. A GPU's state is skipped where there is none."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def random_state() -> dict:
    """The generators' states: tensors, numbers and tuples only."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        **model_random_state(),
    }


def load_random_state(state: dict) -> None:
    """The reverse of `random_state`. A GPU's state is skipped where there is none."""
    version, numbers, gauss_next = state["python"]
    random.setstate((version, tuple(numbers), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    load_model_random_state(state)
