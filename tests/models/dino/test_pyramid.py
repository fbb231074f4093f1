import pytest
import torch
import torch.nn.functional as F

from models.dino.pyramid import cells, flatten_levels, token_mask, valid_cells, valid_ratios


def test_tokens_go_row_by_row_finest_level_first():
    levels = [torch.arange(2 * 3).view(1, 1, 2, 3), 100 + torch.arange(2).view(1, 1, 1, 2)]
    assert flatten_levels(levels).flatten().tolist() == [0, 1, 2, 3, 4, 5, 100, 101]
    wide = flatten_levels([torch.randn(2, 5, 3, 4)])
    assert wide.shape == (2, 12, 5)


def test_masks_take_the_nearest_pixel_of_the_padding():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, 5:] = True
    found = token_mask(mask, ((4, 4), (2, 2)))
    assert found.dtype == torch.bool and found.shape == (1, 20)
    # Cell j of 4 reads pixel 2 j, cell j of 2 reads pixel 4 j.
    assert found[0, :4].tolist() == [False, False, False, True]
    assert found[0, 16:18].tolist() == [False, False]
    uneven = torch.rand(3, 37, 51, generator=torch.Generator().manual_seed(0)) < 0.5
    shapes = ((13, 17), (5, 7))
    expected = [F.interpolate(uneven[:, None].float(), size=shape).flatten(1).bool() for shape in shapes]
    assert torch.equal(token_mask(uneven, shapes), torch.cat(expected, dim=1))


def test_valid_ratios_are_width_then_height():
    mask = torch.ones(1, 4, 8, dtype=torch.bool)
    mask[:, :3, :2] = False
    where = cells(((4, 8), (2, 4)), mask.device, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        ratios = valid_ratios(token_mask(mask, ((4, 8), (2, 4))), where)
    assert ratios[0].flatten().tolist() == pytest.approx([2 / 8, 3 / 4, 1 / 4, 2 / 2])
    assert valid_cells(ratios, where)[0, ::31].tolist() == [[2, 3], [2, 3]]


def test_cells_are_x_y_and_begin_at_a_half():
    where = cells(((2, 3), (1, 1)), torch.device("cpu"), torch.float64)
    fine = [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
    assert where.centres.tolist() == [*fine, [0.5, 0.5]]
    assert where.sizes.tolist() == [[3, 2]] * 6 + [[1, 1]] and where.levels.tolist() == [[3, 2], [1, 1]]
    assert where.level.tolist() == [0] * 6 + [1] and where.scale.flatten().tolist() == [1] * 6 + [2]
    assert where.edges.sum(0).tolist() == [3, 2, 1, 1]
