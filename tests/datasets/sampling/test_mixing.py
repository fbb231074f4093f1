import pytest

from datasets.sample import SampleIndex
from datasets.sampling.mixing import (
    ALTERNATING,
    ALWAYS,
    IMAGE_LEVEL,
    MixedBatchSampler,
    MixRatio,
    MultiDataset,
    Window,
)
from datasets.sampling.samplers import ShuffledSampler

DETECTION = 0


def batches(
    rank=0,
    world_size=1,
    *,
    batch_size=2,
    epoch=0,
    mix_ratio=ALTERNATING,
    num_images=20,
    num_image_level=7,
    image_level_batch_size=3,
    window=ALWAYS,
):
    detection = ShuffledSampler(num_images, seed=1, rank=rank, world_size=world_size)
    sampler = MixedBatchSampler(
        detection,
        batch_size,
        mix_ratio=mix_ratio,
        num_image_level=num_image_level,
        image_level_batch_size=image_level_batch_size,
        window=window,
    )
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


def streams(drawn):
    kinds = [{d.stream for d in batch} for batch in drawn]
    assert all(len(kind) == 1 for kind in kinds), "a batch is purely one or the other"
    return [kind.pop() for kind in kinds]


def test_streams_alternate_and_an_epoch_is_one_pass_over_the_first():
    drawn = batches()
    assert streams(drawn) == [DETECTION, IMAGE_LEVEL] * 10
    assert sorted(d.image_index for b in drawn if b[0].stream == DETECTION for d in b) == list(range(20))
    assert {len(b) for b in drawn if b[0].stream == IMAGE_LEVEL} == {3}


@pytest.mark.parametrize(
    ("mix_ratio", "expected"),
    [
        (MixRatio(2, 1), [0, 0, 1] * 5),
        (MixRatio(1, 3), [0, 1, 1, 1] * 10),
        (MixRatio(3, 2), [0, 0, 0, 1, 1] * 3 + [0]),
    ],
)
def test_other_weights(mix_ratio, expected):
    assert streams(batches(mix_ratio=mix_ratio)) == expected


def test_without_the_second_stream():
    assert streams(batches(num_image_level=0)) == [DETECTION] * 10


def test_the_incomplete_last_batch_is_left_out_everywhere():
    assert len(batches(num_images=21, batch_size=4)) == 2 * 5
    assert [len(batches(rank, 4, num_images=21)) for rank in range(4)] == [2 * 2] * 4


def test_image_level_images_come_once_before_any_again_over_epochs_and_ranks():
    drawn = [batch for epoch in range(7) for batch in batches(epoch=epoch, batch_size=4)]
    single = [d.image_index for batch in drawn for d in batch if d.stream == IMAGE_LEVEL]
    assert len(single) == 7 * 5 * 3
    for start in range(0, len(single), 7):
        assert sorted(single[start : start + 7]) == list(range(7))


@pytest.mark.parametrize("epoch", [0, 3])
def test_global_batches_are_the_same_on_one_and_four_ranks(epoch):
    single = batches(batch_size=4, image_level_batch_size=4, epoch=epoch)
    ranks = [batches(r, 4, batch_size=1, image_level_batch_size=1, epoch=epoch) for r in range(4)]
    assert [[d for b in step for d in b] for step in zip(*ranks, strict=True)] == single


@pytest.mark.parametrize("offset", [0, 1, 6, 7, 20])
def test_an_epoch_goes_on_from_any_batch(offset):
    detection = ShuffledSampler(20, seed=1)
    sampler = MixedBatchSampler(detection, 2, num_image_level=7, image_level_batch_size=3)
    sampler.set_epoch(2, offset)
    assert list(sampler) == batches(epoch=2)[offset:] and len(sampler) == 20
    sampler.set_epoch(3)
    assert list(sampler) == batches(epoch=3)
    with pytest.raises(ValueError, match="batch 21 of an epoch of 20"):
        sampler.set_epoch(2, 21)


@pytest.mark.parametrize(
    ("window", "mixed"),
    [(Window(2), [2, 3, 4]), (Window(1, 3), [1, 2]), (Window(end=4), [0, 1, 2, 3]), (ALWAYS, range(5))],
)
@pytest.mark.parametrize("mix_ratio", [ALTERNATING, MixRatio(3, 2), MixRatio(1, 4)])
def test_outside_of_its_window_boxes_take_the_places_of_the_image_level_stream(window, mixed, mix_ratio):
    """No image of either stream is left out, or comes twice before all have come once."""
    drawn = [batches(epoch=epoch, window=window, mix_ratio=mix_ratio) for epoch in range(5)]
    always = [batches(epoch=epoch, mix_ratio=mix_ratio) for epoch in range(5)]
    for epoch, (ours, other) in enumerate(zip(drawn, always, strict=True)):
        assert streams(ours) == (streams(other) if epoch in mixed else [DETECTION] * len(other))
    boxes, labels = (
        [d for epoch in drawn for batch in epoch for d in batch if d.stream == stream]
        for stream in (DETECTION, IMAGE_LEVEL)
    )
    for found, images in ((boxes, 20), (labels, 7)):
        for start in range(0, len(found) - images + 1, images):
            assert sorted(d.image_index for d in found[start : start + images]) == list(range(images))
        # Nothing is augmented twice alike.
        assert len({(d.epoch, d.position) for d in found}) == len(found)


@pytest.mark.parametrize("epoch", range(4))
def test_a_window_on_four_ranks_and_from_any_batch(epoch):
    """An epoch of 5 batches of boxes on each rank, 6 steps: passes begin in the middle of epochs."""
    arguments = {"num_images": 21, "epoch": epoch, "window": Window(1, 2), "mix_ratio": MixRatio(4, 1)}
    single = batches(batch_size=4, image_level_batch_size=4, **arguments)
    ranks = [batches(r, 4, batch_size=1, image_level_batch_size=1, **arguments) for r in range(4)]
    assert [[d for b in step for d in b] for step in zip(*ranks, strict=True)] == single
    sampler = MixedBatchSampler(
        ShuffledSampler(21, seed=1),
        4,
        num_image_level=7,
        image_level_batch_size=4,
        mix_ratio=MixRatio(4, 1),
        window=Window(1, 2),
    )
    for offset in range(len(single) + 1):
        sampler.set_epoch(epoch, offset)
        assert list(sampler) == single[offset:]


def test_the_index_selects_the_dataset():
    class Echo:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, index):
            return self.name, index.image_index

        def damaged_names(self):
            return [f"{self.name}.jpg"]

    both = MultiDataset([Echo("boxes"), Echo("labels")])
    assert both[SampleIndex(3)] == ("boxes", 3) and both[SampleIndex(4, stream=IMAGE_LEVEL)] == ("labels", 4)
    assert both.damaged_names() == ["boxes.jpg", "labels.jpg"]
