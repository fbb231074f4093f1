from dataclasses import FrozenInstanceError

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from util.pixels import IMAGENET_MEAN, IMAGENET_STD
from util.structures import Detections, PaddedImages, Target, Targets


def target(count: int = 2) -> Target:
    return Target(torch.rand(count, 4), torch.arange(count), image_id=7, size=(8, 9), original_size=(16, 18))


def test_padding_is_zero_at_bottom_and_right_and_marked():
    tensors = [torch.ones(3, 4, 6), torch.full((3, 5, 2), 2.0)]
    images = PaddedImages.from_list(tensors)
    assert images.tensor.shape == (2, 3, 5, 6)
    assert images.sizes == ((4, 6), (5, 2))
    assert len(images) == 2
    for i, tensor in enumerate(tensors):
        height, width = images.sizes[i]
        assert torch.equal(images.tensor[i, :, :height, :width], tensor)
        assert not images.mask[i, :height, :width].any()
        assert images.mask[i].sum() == 5 * 6 - height * width
        assert images.tensor[i][:, images.mask[i]].abs().sum() == 0


@pytest.mark.parametrize(("divisor", "expected"), [(1, (5, 7)), (4, (8, 8)), (32, (32, 32))])
def test_padded_to_a_multiple_of_the_divisor(divisor, expected):
    images = PaddedImages.from_list([torch.zeros(3, 5, 7)], size_divisor=divisor)
    assert images.tensor.shape[-2:] == expected
    assert images.sizes == ((5, 7),)


def interleaved(height: int, width: int) -> torch.Tensor:
    """Bytes in the order that images are decoded in."""
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).permute(2, 0, 1)


def test_a_batch_of_bytes_is_normalised_as_each_image_alone():
    tensors = [interleaved(8, 6), interleaved(5, 9)]
    images = PaddedImages.from_list(tensors)
    assert images.tensor.dtype == torch.uint8 and images.tensor.stride(1) == 1
    found = images.normalised()
    assert found.tensor.dtype == torch.float32 and found.tensor.is_contiguous()
    assert torch.equal(found.mask, images.mask) and found.sizes == images.sizes
    for i, tensor in enumerate(tensors):
        height, width = images.sizes[i]
        alone = F.normalize(F.to_dtype(tensor, torch.float32, scale=True), [*IMAGENET_MEAN], [*IMAGENET_STD])
        assert torch.equal(found.tensor[i, :, :height, :width], alone)
        assert not found.tensor[i][:, images.mask[i]].any()
    assert found.normalised() is found
    planar = PaddedImages.from_list([p.contiguous() for p in tensors])
    assert torch.equal(planar.normalised().tensor, found.tensor)


def test_moving_moves_every_tensor_and_keeps_the_rest():
    moved = Targets.from_list([target()]).to("meta")
    tensors = (moved.boxes_cxcywh, moved.labels, moved.image_index, moved.box_index)
    assert {t.device.type for t in tensors} == {"meta"}
    assert (moved.counts, moved.image_ids, moved.sizes, moved.original_sizes, moved.image_level) == (
        *((2,), (7,), ((8, 9),), ((16, 18),)),
        False,
    )
    images = PaddedImages.from_list([torch.zeros(3, 2, 2)]).to("meta")
    assert images.tensor.device.type == images.mask.device.type == "meta"


def test_the_original_is_not_touched_by_moving():
    original = Targets.from_list([target()])
    original.to("meta")
    assert original.labels.device.type == "cpu"


def test_lengths_count_boxes():
    assert len(target(3)) == 3
    assert len(target(0)) == 0
    assert len(Detections(torch.rand(4), torch.zeros(4, dtype=torch.int64), torch.rand(4, 4))) == 4


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        target().image_id = 3


def test_targets_of_a_batch_are_one_row_of_boxes():
    parts = [target(2), target(0), target(1)]
    batch = Targets.from_list(parts)
    assert len(batch) == 3 and batch.counts == (2, 0, 1)
    assert batch.image_index.tolist() == [0, 0, 2] and batch.box_index.tolist() == [0, 1, 0]
    assert batch.labels.tolist() == [0, 1, 0] and batch.boxes_cxcywh.shape == (3, 4)
    assert batch.image_ids == (7, 7, 7) and batch.original_sizes == ((16, 18),) * 3 and not batch.image_level
    for given, found in zip(parts, batch, strict=True):
        assert torch.equal(given.boxes_cxcywh, found.boxes_cxcywh) and torch.equal(given.labels, found.labels)
        assert (found.image_id, found.size, found.original_size) == (7, (8, 9), (16, 18))


def test_the_same_images_without_boxes():
    batch = Targets.from_list([target(2), target(0), target(1)])
    empty = Targets.from_list([target(0)] * 3)
    found = batch.without_boxes()
    assert found.counts == empty.counts and found.image_ids == batch.image_ids and found.sizes == batch.sizes
    for name in ("boxes_cxcywh", "labels", "image_index", "box_index"):
        assert torch.equal(getattr(found, name), getattr(empty, name)), name


def test_a_batch_without_boxes_has_empty_indices():
    batch = Targets.from_list([target(0)])
    assert batch.image_index.shape == batch.box_index.shape == (0,) and batch.image_index.dtype == torch.int64
