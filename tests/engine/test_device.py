import logging

import pytest
import torch

from config import Config
from engine import device
from engine.build import build_settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("dtype", "has_bfloat16", "expected"),
    [
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, None),
        ("float16", False, torch.float16),
    ],
)
def test_a_cpu_that_emulates_bfloat16_computes_in_float32_and_says_so_once(
    monkeypatch, caplog, dtype, has_bfloat16, expected
):
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: has_bfloat16)
    device._warn_of_emulation.cache_clear()
    caplog.set_level(logging.INFO, logger="engine")
    config = Config(amp=True, amp_dtype=dtype)
    for _ in range(2):
        assert build_settings(config, CPU).autocast_dtype == expected
    assert len(caplog.messages) == (expected is None)
    assert build_settings(Config(), CPU).autocast_dtype is None


def test_a_gpu_takes_the_type_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: False)
    assert device.autocast_dtype("bfloat16", torch.device("cuda", 0)) == torch.bfloat16


def test_this_cpu_answers():
    assert isinstance(device.cpu_has_bfloat16(), bool)
