"""What tests of the doctor share."""

import pytest

from tools.data_doctor import machine


@pytest.fixture(autouse=True)
def _shared_memory(monkeypatch):
    """Enough, whatever this machine has."""
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 2**40)
