"""`batch_size='auto'`: a straight line through two measured steps, and the largest batch below a limit."""

import math
from pathlib import Path

import pytest
import torch

from engine.batch_size import Growth, learning_rate_rule
from engine.device import memory_at_hand, peak_memory, reset_peak_memory
from tests.models.tiny import tiny_config
from util.errors import UserError

CPU = torch.device("cpu")


def test_the_line_goes_through_what_was_measured():
    # Two images share a larger padding than one has: 150 pixels each.
    growth = Growth((100, 1000), (300, 1400))
    assert [growth.forecast(n) for n in (1, 2, 3, 4)] == [1000, 1400, 1700, 2000]
    assert [growth.largest(64, limit) for limit in (999, 1000, 1399, 1400, 1999, 2000)] == [0, 1, 1, 2, 3, 4]
    assert growth.largest(3, 1e9) == 3


def test_two_images_that_do_not_fit_leave_one():
    growth = Growth((100, 1000), None)
    assert growth.forecast(2) == math.inf and growth.largest(64, 1e9) == 1
    assert growth.largest(64, 999) == 0


def test_noise_does_not_shrink_larger_batches():
    assert Growth((100, 1000), (200, 990)).forecast(50) == 1000


def test_the_rules_for_the_learning_rate():
    line = learning_rate_rule(64, 2e-4)
    assert "64 images a step" in line and "linear rule makes 0.0004" in line
    assert "square-root rule 0.0002" in line and "lr stays 0.0002" in line


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says it")
def test_memory_at_hand_and_a_peak_that_is_counted_anew():
    own, shared = memory_at_hand(CPU), memory_at_hand(CPU, ranks_here=1000)
    assert own > 2 * shared > 0
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    torch.ones(2**24).sum()  # 64 MB
    assert peak_memory(CPU) - before > 2**25
    reset_peak_memory(CPU)
    assert peak_memory(CPU) - before < 2**25


@pytest.mark.parametrize("value", ["many", 0, 1.5, True])
def test_other_values_are_refused(value):
    with pytest.raises(UserError, match="batch_size"):
        tiny_config(batch_size=value)
    assert tiny_config(batch_size="auto").batch_size == "auto"
