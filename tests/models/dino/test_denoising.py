import pytest
import torch
from torch import nn

from models.dino.denoising import Denoising, attention_mask, slots_of_copies
from models.dino.output import DenoisingLayout
from tests.models.tiny import batch_of, target, targets
from util.boxes import box_cxcywh_to_xyxy

CLASSES = 50
BOX = [0.5, 0.5, 0.2, 0.1]
OTHER = [0.3, 0.6, 0.1, 0.3]


def denoising(number: int = 4, label_noise: float = 0.0, box_noise: float = 0.0) -> Denoising:
    torch.manual_seed(0)
    return Denoising(number, label_noise, box_noise, CLASSES, nn.Embedding(CLASSES, 8))


def test_slots_of_the_documented_example():
    image, slot = slots_of_copies(targets((2, 1)), DenoisingLayout(2, 2))
    assert image.tolist() == [0, 0, 1] * 4
    assert slot.tolist() == [0, 1, 0, 2, 3, 2, 4, 5, 4, 6, 7, 6]


@pytest.mark.parametrize(
    ("counts", "number", "groups", "width"),
    [([2, 1], 4, 2, 2), ([3, 0, 1], 100, 33, 3), ([7], 4, 1, 7), ([1], 4, 4, 1), ([0, 0], 4, 4, 0)],
)
def test_groups_and_width(counts, number, groups, width):
    found = denoising(number)(targets(counts, classes=CLASSES), num_queries=3)
    assert (found.layout.groups, found.layout.max_boxes) == (groups, width)
    assert found.queries.shape == (len(counts), 2 * groups * width, 8)
    assert found.reference_boxes.shape == (len(counts), 2 * groups * width, 4)
    assert found.mask.shape == (found.layout.num_denoising_queries + 3,) * 2


def test_without_noise_every_copy_is_its_box_and_unused_slots_are_neutral():
    part = denoising()
    found = part(batch_of(target([BOX, OTHER], [7, 9]), target([OTHER], [9])), num_queries=3)
    for block in range(4):
        assert torch.allclose(found.reference_boxes[0, 2 * block], torch.tensor(BOX))
        assert torch.allclose(found.reference_boxes[0, 2 * block + 1], torch.tensor(OTHER))
        assert torch.allclose(found.reference_boxes[1, 2 * block], torch.tensor(OTHER))
        assert torch.equal(found.queries[0, 2 * block], part.label_embedding.weight[7])
        assert torch.equal(found.queries[1, 2 * block], part.label_embedding.weight[9])
        assert found.reference_boxes[1, 2 * block + 1].tolist() == [0.5] * 4
        assert found.queries[1, 2 * block + 1].abs().sum() == 0


def test_a_box_near_the_border_is_clamped_as_everywhere():
    found = denoising()(batch_of(target([[0.0005, 0.5, 0.001, 1.0]], [1])), num_queries=1)
    x, _, w, h = found.reference_boxes[0, 0].tolist()
    assert (w, h) == pytest.approx((0.001, 1000 / 1001), rel=1e-4)
    assert x == pytest.approx(0.001 / 1.0005, rel=1e-4)


@pytest.mark.parametrize("scale", [0.25, 0.45])
def test_positives_stay_near_and_negatives_are_farther(scale):
    """In half box sizes, a corner of a positive moves by less than the scale, of a negative by 1..2 of it."""
    count = 200
    part = denoising(number=1, box_noise=scale)
    found = part(batch_of(target([BOX] * count, [0] * count)), num_queries=1)
    corners = box_cxcywh_to_xyxy(torch.tensor(BOX))
    half = torch.tensor([0.1, 0.05, 0.1, 0.05])
    moved = (box_cxcywh_to_xyxy(found.reference_boxes[0]) - corners) / half / scale
    positive, negative = moved[:count], moved[count:]
    assert positive.abs().max() <= 1 + 1e-3
    assert negative.abs().min() >= 1 - 1e-3 and negative.abs().max() <= 2 + 1e-3
    for part_of_it, low in ((positive, 0.0), (negative, 1.0)):
        distance = part_of_it.abs() - low
        assert distance.mean().item() == pytest.approx(0.5, abs=0.05)
        assert (part_of_it > 0).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_a_negative_turned_inside_out_stays_a_box():
    """At the release's scale of 1, a negative's corners may pass each other."""
    found = denoising(number=1, box_noise=1.0)(batch_of(target([BOX] * 200, [0] * 200)), num_queries=1)
    sizes = found.reference_boxes[0, :, 2:]
    assert sizes.min().item() == pytest.approx(1 / 1001, rel=1e-3)
    assert sizes[:200].min() > 0.002  # positives cannot


def test_noised_corners_are_clamped_to_the_image():
    part = denoising(number=1, box_noise=1.0)
    found = part(batch_of(target([[0.1, 0.9, 0.2, 0.2]] * 100, [0] * 100)), num_queries=1)
    corners = box_cxcywh_to_xyxy(found.reference_boxes[0])
    # The inverse sigmoid moves what lies within 1e-3 of the ends.
    assert corners.min() >= -2e-3 and corners.max() <= 1 + 2e-3


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_half_the_ratio_is_the_share_of_redrawn_labels(ratio):
    part = denoising(number=1, label_noise=ratio)
    part.label_embedding.weight.data.copy_(torch.arange(CLASSES)[:, None].expand(-1, 8))
    found = part(batch_of(target([BOX] * 2000, [3] * 2000)), num_queries=1)
    labels = found.queries[0, :, 0].long()
    changed = (labels != 3).float().mean().item()
    assert changed == pytest.approx(ratio / 2 * (CLASSES - 1) / CLASSES, abs=0.03)
    assert len(labels.unique()) == CLASSES


def test_targets_are_not_written_to():
    given = targets((2, 1), classes=CLASSES)
    before = [(t.boxes_cxcywh.clone(), t.labels.clone()) for t in given]
    denoising(label_noise=1.0, box_noise=1.0)(given, num_queries=1)
    for one, (boxes, labels) in zip(given, before, strict=True):
        assert torch.equal(one.boxes_cxcywh, boxes) and torch.equal(one.labels, labels)


def test_without_boxes_there_are_no_slots_but_a_graph():
    part = denoising()
    found = part(targets((0, 0)), num_queries=3)
    assert found.layout.num_denoising_queries == 0 and found.mask.shape == (3, 3) and not found.mask.any()
    found.queries.sum().backward()
    assert part.label_embedding.weight.grad is not None
    assert part.label_embedding.weight.grad.abs().sum() == 0


def test_attention_mask_against_a_slow_loop():
    layout, queries = DenoisingLayout(groups=3, max_boxes=2), 4
    mask = attention_mask(layout, queries, torch.device("cpu"))
    group = [slot // 4 for slot in range(12)] + [None] * queries
    for looking in range(16):
        for seen in range(16):
            if group[seen] is None:
                allowed = True  # everyone sees the matching queries
            else:
                allowed = group[looking] == group[seen]  # and no other group's slots
            assert mask[looking, seen].item() == (not allowed)


def test_the_label_embedding_learns_from_every_copy():
    part = denoising(number=4)
    part(batch_of(target([BOX, OTHER], [7, 9])), num_queries=1).queries.sum().backward()
    assert part.label_embedding.weight.grad[7].tolist() == [4.0] * 8
    assert part.label_embedding.weight.grad[3].tolist() == [0.0] * 8
