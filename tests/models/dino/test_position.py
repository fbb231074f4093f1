import math

import pytest
import torch

from models.dino.position import SinePosition, box_position
from models.dino.pyramid import cells, token_mask, valid_ratios


def embed(position: SinePosition, mask: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Of the one level (B, h, w) that has this mask: (B, D, h, w)."""
    shapes = (tuple(mask.shape[1:]),)
    where = cells(shapes, mask.device, dtype)
    tokens = position(where, valid_ratios(token_mask(mask, shapes), where))
    return tokens.transpose(1, 2).unflatten(2, shapes[0])


def slow_axis(count: int, last: int, half: int, temperature: float) -> list[float]:
    """Sine and cosine of one coordinate, by the formula."""
    angle = count / (last + 1e-6) * 2 * math.pi
    values = []
    for k in range(half):
        phase = angle / temperature ** (2 * (k // 2) / half)
        values.append(math.sin(phase) if k % 2 == 0 else math.cos(phase))
    return values


def test_a_cell_by_hand():
    """2 x 4 cells, nothing padded: cell (row 0, column 2) is count 1 of 2 down, 3 of 4 across."""
    position = embed(SinePosition(8, 20, 20), torch.zeros(1, 2, 4, dtype=torch.bool))
    assert position.shape == (1, 8, 2, 4)
    y, x = math.pi, 1.5 * math.pi
    root = 20**0.5
    expected = [f(a / t) for a in (y, x) for t in (1, root) for f in (math.sin, math.cos)]
    assert position[0, :, 0, 2].tolist() == pytest.approx(expected, abs=1e-5)


def test_every_cell_with_padding_and_two_temperatures():
    mask = torch.zeros(2, 3, 5, dtype=torch.bool)
    mask[1, 2:, :] = True
    mask[1, :, 3:] = True
    position = embed(SinePosition(16, temperature_h=20, temperature_w=7), mask)
    heights, widths = [3, 2], [5, 3]
    for b in range(2):
        for row in range(heights[b]):
            for column in range(widths[b]):
                y = slow_axis(row + 1, heights[b], 8, 20)
                x = slow_axis(column + 1, widths[b], 8, 7)
                assert position[b, :, row, column].tolist() == pytest.approx(y + x, abs=1e-5)


def test_temperatures_are_not_swapped():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    base, tall = (embed(SinePosition(8, t, 20), mask) for t in (20, 100))
    assert not torch.allclose(base[:, :4], tall[:, :4])
    assert torch.equal(base[:, 4:], tall[:, 4:])


def test_padded_rows_do_not_move_the_valid_ones():
    whole = embed(SinePosition(8), torch.zeros(1, 3, 3, dtype=torch.bool))
    mask = torch.ones(1, 5, 6, dtype=torch.bool)
    mask[:, :3, :3] = False
    assert torch.allclose(embed(SinePosition(8), mask)[:, :, :3, :3], whole)


def test_precision_and_width():
    mask = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert embed(SinePosition(8), mask, torch.float32).dtype == torch.float32
    with pytest.raises(ValueError, match="6"):
        SinePosition(6)


def test_boxes_are_embedded_in_the_order_y_x_w_h():
    box = torch.tensor([[0.1, 0.25, 0.6, 0.9]], dtype=torch.float64)
    embedded = box_position(box, 8)
    assert embedded.shape == (1, 16)
    for place, coordinate in enumerate((0.25, 0.1, 0.6, 0.9)):
        angle = coordinate * 2 * math.pi
        expected = [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
        assert embedded[0, 4 * place : 4 * place + 4].tolist() == pytest.approx(expected, abs=1e-6)
