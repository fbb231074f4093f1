"""A teacher: the printed region encoder serves a tower that the project has never seen."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.richsem import region_encoders
from models.richsem.teacher import Teacher
from tests.how_to_add.example import run_example
from tests.models.tiny import EMBEDDING, batch_of, make_images, target
from util.errors import UserError


class MyTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 16, stride=16)
        self.projection = nn.Linear(8, EMBEDDING)


@pytest.fixture(autouse=True)
def _registry_as_it_was(monkeypatch):
    monkeypatch.setattr(region_encoders, "_ENCODERS", dict(region_encoders._ENCODERS))


def test_the_example_adds_a_tower():
    with pytest.raises(UserError, match="image tower of kind MyTower"):
        Teacher(MyTower())
    run_example("A teacher", MyTower=MyTower)
    torch.manual_seed(0)
    tower = MyTower()
    teacher, images = Teacher(tower), make_images(((64, 96),))
    semantic = teacher(images, batch_of(target([[0.5, 0.5, 1.0, 1.0], [0.25, 0.25, 0.5, 0.5]], [0, 0])))
    cells = tower.trunk(images.tensor * teacher.scale + teacher.shift)[0]
    expected = torch.stack([cells.mean((1, 2)), cells[:, :2, :3].mean((1, 2))])
    expected = F.normalize(tower.projection(expected), dim=-1)
    assert torch.allclose(semantic.ground_truth, expected, atol=1e-5)
    assert not semantic.ground_truth.requires_grad
