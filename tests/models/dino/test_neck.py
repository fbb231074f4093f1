import torch
import torch.nn.functional as F

from models.dino.neck import Neck


def maps(channels=(8, 16), size=16):
    return [torch.randn(2, c, size // 2**i, size // 2**i) for i, c in enumerate(channels)]


def test_every_level_has_the_width_and_half_the_size_of_the_one_before():
    neck = Neck((8, 16), dim=32, num_levels=4)
    levels = neck(maps())
    assert [tuple(x.shape) for x in levels] == [(2, 32, 16, 16), (2, 32, 8, 8), (2, 32, 4, 4), (2, 32, 2, 2)]


def test_odd_sizes_are_rounded_up():
    assert Neck((8,), 32, 3)([torch.randn(2, 8, 7, 5)])[1].shape[2:] == (4, 3)


def test_the_first_extra_level_comes_from_the_raw_last_map_and_the_next_from_it():
    torch.manual_seed(0)
    features = maps()
    neck = Neck((8, 16), dim=32, num_levels=4)
    levels = neck(features)

    def projected(number, x, stride):
        conv, norm = neck.projections[number]
        y = F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=conv.weight.shape[-1] // 2)
        return F.group_norm(y, 32, norm.weight, norm.bias)

    first = projected(2, features[-1], 2)
    assert torch.allclose(levels[0], projected(0, features[0], 1), atol=1e-6)
    assert torch.allclose(levels[2], first, atol=1e-6)
    assert torch.allclose(levels[3], projected(3, first, 2), atol=1e-6)
    assert [p[0].in_channels for p in neck.projections] == [8, 16, 16, 32]


def test_as_many_levels_as_maps_adds_none():
    assert len(Neck((8, 16), 32, 2)(maps())) == 2
