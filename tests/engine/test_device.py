import pytest
import torch

from engine.device import use_tf32


def in_use() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def tf32():
    """Puts back what was set."""
    before = in_use()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("on", [True, False])
def test_tf32_is_for_products_and_convolutions_alike(on, tf32):
    use_tf32(on)
    assert in_use() == (on, on)
