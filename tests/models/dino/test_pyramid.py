import pytest
import torch

from models.dino.pyramid import cell_centres, flatten_levels, level_masks, valid_ratio


def test_tokens_go_row_by_row_finest_level_first():
    levels = [torch.arange(2 * 3).view(1, 1, 2, 3), 100 + torch.arange(2).view(1, 1, 1, 2)]
    assert flatten_levels(levels).flatten().tolist() == [0, 1, 2, 3, 4, 5, 100, 101]
    wide = flatten_levels([torch.randn(2, 5, 3, 4)])
    assert wide.shape == (2, 12, 5)


def test_level_masks_take_the_nearest_pixel_of_the_padding():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :, 5:] = True
    fine, coarse = level_masks(mask, [torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)])
    # Cell j of 4 reads pixel 2 j, cell j of 2 reads pixel 4 j.
    assert fine[0, 0].tolist() == [False, False, False, True]
    assert coarse[0, 0].tolist() == [False, False]
    assert fine.dtype == torch.bool


def test_valid_ratio_is_width_then_height():
    mask = torch.ones(1, 4, 8, dtype=torch.bool)
    mask[:, :3, :2] = False
    assert valid_ratio(mask, torch.float64)[0].tolist() == pytest.approx([2 / 8, 3 / 4])


def test_cell_centres_are_x_y_and_begin_at_a_half():
    (centres,) = cell_centres([(2, 3)], torch.device("cpu"), torch.float64)
    assert centres.tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
