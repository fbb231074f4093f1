"""The compiler of each test by itself."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """No graphs of other tests, and no checks of shapes, which are for the tests alone, in those of these."""
    # Seconds, which the tests that compile nothing need not take.
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch.compiler.reset()
