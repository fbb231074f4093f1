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


@pytest.fixture
def tools(tmp_path):
    """A folder to be the whole PATH: no compiler in it unless a test puts one there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder
