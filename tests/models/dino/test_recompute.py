"""Recomputed activations: the same losses, gradients and statistics bit by bit, and less that is kept."""

import pytest
import torch
from torch import nn

from benchmarks.operators import SavedBytes
from models.dino.recompute import recomputed
from tests.models.tiny import build, make_images, targets, tiny_config
from util.errors import UserError


def step(tmp_path, use_checkpoint, dtype=None) -> tuple[dict, dict, dict, int]:
    """Losses, gradients and buffers of one training step, and the bytes that it kept for backward."""
    changes = {"dropout": 0.2, "use_checkpoint": use_checkpoint, "enc_layers": 2}
    parts = build(tiny_config(**changes), tmp_path)
    images, given = make_images(), targets((2, 1))
    torch.manual_seed(3)
    with SavedBytes() as saved, torch.autocast("cpu", dtype, enabled=dtype is not None):
        semantic = parts.teacher(images, given)
        output = parts.model(images, given)
    losses = parts.criterion(output, given, semantic)
    losses.total.backward()
    gradients = {name: p.grad for name, p in parts.model.named_parameters()}
    return losses.named, gradients, dict(parts.model.named_buffers()), saved.bytes


@pytest.mark.parametrize("parts", [True, "backbone", ["encoder"], ["decoder"]])
def test_losses_gradients_and_statistics_are_the_same(parts, tmp_path):
    *plain, kept = step(tmp_path, False)
    *again, fewer = step(tmp_path, parts)
    for expected, found in zip(plain, again, strict=True):
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert fewer < kept


def test_under_autocast_too(tmp_path):
    *plain, kept = step(tmp_path, False, torch.bfloat16)
    *again, fewer = step(tmp_path, True, torch.bfloat16)
    for expected, found in zip(plain, again, strict=True):
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert fewer < 0.6 * kept


def test_without_gradients_nothing_is_kept_or_repeated():
    calls = []
    with torch.no_grad():
        recomputed(True, lambda _, x: calls.append(x) or x, nn.Identity(), torch.ones(1))
    assert len(calls) == 1


@pytest.mark.parametrize("value", ["neck", ["neck"], 1, ["encoder", True]])
def test_other_parts_are_refused(value):
    with pytest.raises(UserError, match="use_checkpoint"):
        tiny_config(use_checkpoint=value)
