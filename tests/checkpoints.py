"""Checkpoints of this project: read without the models, and compared."""

from pathlib import Path

import torch

from util.checkpoint import Checkpoint


def read_checkpoint(path: str | Path) -> Checkpoint:
    return Checkpoint.read(Path(path))


def entries(checkpoint: Checkpoint) -> dict:
    """What the file holds."""
    return {name: value for name, value in vars(checkpoint).items() if name != "path"}


def assert_equal(a, b, where="") -> None:
    """Bit for bit, through dicts and tensors."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where
