import pytest
import torch

from models.richsem.clip_resnet import attention_pool
from tests.models.tiny import tiny_clip


@pytest.mark.parametrize("regions", [5, 0])
def test_it_is_open_clips_pool(regions):
    torch.manual_seed(0)
    pool = tiny_clip().visual.attnpool.double()
    side = round((len(pool.positional_embedding) - 1) ** 0.5)
    features = torch.randn(regions, pool.k_proj.in_features, side, side).double()
    found = attention_pool(pool, features)
    assert found.shape == (regions, pool.c_proj.out_features)
    if regions:
        assert torch.allclose(found, pool(features), atol=1e-10)
