import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from models.dino.kept import Kept


def test_a_result_is_made_once_and_those_used_last_are_kept():
    kept, made = Kept(most=2), []

    def make(name: str) -> torch.Tensor:
        made.append(name)
        return torch.zeros(1)

    for name in "abacab":
        kept(name, lambda name=name: make(name))
    assert "".join(made) == "abcb"


def test_what_inference_makes_training_can_use():
    kept = Kept()
    with torch.inference_mode():
        kept("x", lambda: torch.ones(2))
    weight = torch.ones(2, requires_grad=True)
    (weight * kept("x", lambda: torch.zeros(2))).sum().backward()
    assert weight.grad.tolist() == [1, 1]


def test_fake_tensors_are_not_kept():
    kept = Kept()
    with FakeTensorMode():
        assert isinstance(kept("x", lambda: torch.ones(2)), FakeTensor)
    assert type(kept("x", lambda: torch.ones(2))) is torch.Tensor
