import torch
from torch import nn

from models.dino.simple_pyramid import SimpleFeaturePyramid


def test_every_level_has_its_size_and_channels():
    pyramid = SimpleFeaturePyramid(16, (2, 1, 0, -1, -2))
    levels = pyramid(torch.randn(2, 16, 5, 6))
    assert pyramid.channels == (4, 8, 16, 16, 16)
    sizes = [(20, 24), (10, 12), (5, 6), (3, 3), (2, 2)]
    assert [tuple(x.shape) for x in levels] == [
        (2, c, *s) for c, s in zip(pyramid.channels, sizes, strict=True)
    ]


def test_every_level_is_normalised_over_its_channels():
    for level in SimpleFeaturePyramid(32, (2, 0, -1))(5 + 3 * torch.randn(1, 32, 4, 4)):
        assert torch.allclose(level.mean(1), torch.zeros(()), atol=1e-5)
        assert torch.allclose(level.std(1, correction=0), torch.ones(()), atol=1e-2)


def test_cells_stay_where_they_are():
    """A change of one cell of the map changes the cells over it, on every level."""
    pyramid = SimpleFeaturePyramid(8, (1, 0, -1))
    x = torch.randn(1, 8, 4, 4)
    changed = x.clone()
    changed[:, :, 1, 2] += 10
    with torch.no_grad():
        moved = [
            (a != b).any(1)[0].nonzero().tolist() for a, b in zip(pyramid(x), pyramid(changed), strict=True)
        ]
    assert moved == [[[2, 4], [2, 5], [3, 4], [3, 5]], [[1, 2]], [[0, 1]]]


def test_the_finest_level_is_not_linear():
    kinds = [type(module) for module in SimpleFeaturePyramid(8, (2,)).levels[0]]
    assert kinds.count(nn.ConvTranspose2d) == 2 and kinds.index(nn.GELU) == 2
