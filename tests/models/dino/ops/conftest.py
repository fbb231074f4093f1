import pytest
import torch

from models.dino.ops import extension


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Every kind of device that has compiled kernels here."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    if not extension.compiled(request.param):
        pytest.skip(extension.status(request.param).reason)
    return request.param
