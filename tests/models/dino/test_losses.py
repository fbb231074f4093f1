import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from models.dino.losses import giou_loss, l1_loss
from util.boxes import box_cxcywh_to_xyxy


def test_l1_sums_over_coordinates():
    a = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]])
    b = torch.tensor([[0.2, 0.1, 0.3, 0.1], [0.5, 0.5, 0.5, 0.7]])
    assert l1_loss(a, b).tolist() == pytest.approx([0.1 + 0.1 + 0.3, 0.2])


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.4 * torch.rand(count, 4, generator=generator, dtype=torch.float64)


def test_paired_giou_is_torchvisions():
    a, b = random_boxes(50, 0), random_boxes(50, 1)
    expected = generalized_box_iou_loss(box_cxcywh_to_xyxy(a), box_cxcywh_to_xyxy(b), reduction="none")
    assert giou_loss(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_giou_by_hand():
    """Equal boxes: 0. Two unit squares with a unit square of gap between them: union 2, hull 3."""
    same = torch.tensor([[0.5, 0.5, 0.4, 0.2]], dtype=torch.float64)
    assert giou_loss(same, same).item() == pytest.approx(0, abs=1e-4)
    left, right = torch.tensor([[0.5, 0.5, 1.0, 1.0]]).double(), torch.tensor([[2.5, 0.5, 1.0, 1.0]]).double()
    assert giou_loss(left, right).item() == pytest.approx(1 + 1 / 3, abs=1e-5)


@pytest.mark.parametrize("loss", [l1_loss, giou_loss])
def test_no_pairs_give_a_zero_with_a_graph(loss):
    boxes = torch.zeros(0, 4, requires_grad=True)
    values = loss(boxes, torch.zeros(0, 4))
    assert len(values) == 0
    values.sum().backward()
    assert boxes.grad is not None


def test_degenerate_boxes_have_finite_gradients():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    giou_loss(boxes, torch.tensor([[0.5, 0.5, 0.0, 0.0]])).backward()
    assert torch.isfinite(boxes.grad).all()
