"""The name of what computes."""

from pathlib import Path

import pytest
import torch

from util.hardware import cpu_name, device_name


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="not Linux")
def test_a_cpu_has_the_name_that_the_system_shows():
    if "model name" in Path("/proc/cpuinfo").read_text():
        assert cpu_name() and f": {cpu_name()}\n" in Path("/proc/cpuinfo").read_text()
    assert device_name(torch.device("cpu")) == cpu_name()
