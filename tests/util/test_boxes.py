import pytest
import torch
from torchvision.ops import generalized_box_iou

from util.boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, generalized_iou


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
    return torch.cat((corner, corner + size + 0.01), dim=-1)


def test_conversion_by_hand():
    assert box_cxcywh_to_xyxy(torch.tensor([0.5, 0.5, 0.2, 0.4])).tolist() == pytest.approx(
        [0.4, 0.3, 0.6, 0.7]
    )
    assert box_xyxy_to_cxcywh(torch.tensor([10.0, 20.0, 30.0, 60.0])).tolist() == [20.0, 40.0, 20.0, 40.0]


@pytest.mark.parametrize("shape", [(0, 4), (4,), (3, 4), (2, 5, 4)])
def test_conversions_are_inverse_for_any_leading_shape(shape):
    boxes = torch.rand(shape, dtype=torch.float64) + 0.1
    back = box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(boxes))
    assert back.shape == shape
    assert torch.allclose(back, boxes, atol=1e-12)


def test_giou_equals_torchvision_pairwise():
    a, b = random_boxes(7, 0), random_boxes(5, 1)
    assert torch.allclose(generalized_iou(a[:, None], b[None]), generalized_box_iou(a, b), atol=1e-9)


def test_giou_of_known_pairs():
    unit = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert generalized_iou(unit, unit).item() == pytest.approx(1.0)
    # Two unit boxes one apart: no overlap, hull 3, union 2.
    assert generalized_iou(unit, unit + torch.tensor([2.0, 0, 2.0, 0])).item() == pytest.approx(-1 / 3)


def test_giou_of_empty_boxes_is_a_number_with_a_finite_gradient():
    point = torch.zeros(1, 4, requires_grad=True)
    value = generalized_iou(point, torch.zeros(1, 4))
    value.sum().backward()
    assert value.item() == 0.0
    assert torch.isfinite(point.grad).all()
