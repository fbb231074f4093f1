from collections import Counter

import numpy as np
import pytest

from datasets.sampling.aspect import AspectGroupedSampler
from datasets.sampling.samplers import (
    ClassAwareSampler,
    InfiniteSampler,
    RepeatFactorSampler,
    ShuffledSampler,
    repeat_factors,
)

# 30 images: all show class 0, six show class 1, one shows class 2.
IMAGES = np.concatenate((np.arange(30), np.arange(6), [3, 3]))
LABELS = np.concatenate((np.zeros(30), np.ones(6), [2, 2])).astype(np.int64)


def samplers(**shard):
    factors = repeat_factors(IMAGES, LABELS, num_images=30, num_classes=3, threshold=0.5)
    return {
        "plain": ShuffledSampler(30, seed=7, **shard),
        "repeat": RepeatFactorSampler(factors, seed=7, **shard),
        "class": ClassAwareSampler(IMAGES, LABELS, 30, seed=7, **shard),
        "running": InfiniteSampler(11, 24, seed=7, **shard),
        "weighted": InfiniteSampler(11, 24, factors=np.arange(1, 12) / 2, seed=7, **shard),
    }


def draws(kind, epoch, rank=0, world_size=1):
    sampler = samplers(rank=rank, world_size=world_size)[kind]
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler), "the length before iteration is the true one"
    return drawn


KINDS = ["plain", "repeat", "class", "running", "weighted"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_one_order_without_overlap_and_evenly(kind, world_size):
    single = draws(kind, 2)
    parts = [draws(kind, 2, rank, world_size) for rank in range(world_size)]
    assert {len(p) for p in parts} == {len(single) // world_size}
    interleaved = [draw for step in zip(*parts, strict=True) for draw in step]
    if kind in ("running", "weighted") and len(single) % world_size:
        return  # its offset is counted in what all ranks together take
    assert interleaved == single[: len(interleaved)]


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_differ_in_order_but_not_in_length_and_can_be_repeated(kind):
    orders = [[d.image_index for d in draws(kind, epoch)] for epoch in range(12)]
    assert len({len(o) for o in orders}) == 1
    assert len({tuple(o) for o in orders}) == 12
    assert orders[5] == [d.image_index for d in draws(kind, 5)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_draw_has_random_numbers_of_its_own(kind):
    names = [(d.epoch, d.position) for epoch in range(4) for d in draws(kind, epoch)]
    assert len(set(names)) == len(names)


def test_plain_gives_every_image_once():
    assert sorted(d.image_index for d in draws("plain", 3)) == list(range(30))


def test_repeat_factors_are_those_of_the_paper():
    factors = repeat_factors(IMAGES, LABELS, num_images=30, num_classes=3, threshold=0.5)
    expected = np.ones(30)
    expected[:6] = np.sqrt(0.5 / (6 / 30))
    expected[3] = np.sqrt(0.5 / (1 / 30))
    assert np.allclose(factors, expected)
    assert (repeat_factors(IMAGES, LABELS, num_images=30, num_classes=3, threshold=0.001) == 1).all()


def test_a_image_without_boxes_has_factor_one():
    assert repeat_factors(
        np.array([1]), np.array([0]), num_images=3, num_classes=1, threshold=1.0
    ).tolist() == pytest.approx([1, np.sqrt(3), 1])


def test_repeat_factor_sampling_rounds_up_as_often_as_the_fraction_says():
    factors = repeat_factors(IMAGES, LABELS, num_images=30, num_classes=3, threshold=0.5)
    epochs = 400
    counts = np.zeros(30)
    for epoch in range(epochs):
        drawn = Counter(d.image_index for d in draws("repeat", epoch))
        times = np.array([drawn[i] for i in range(30)])
        assert (np.floor(factors) <= times).all() and (times <= np.ceil(factors)).all()
        counts += times
    # The chances of the repeats are rounded down with their number, here from 3.78 to 3.
    whole = np.floor(factors)
    expected = whole + (factors - whole) * (3 / (factors - whole).sum())
    assert np.abs(counts / epochs - expected).max() < 0.08
    assert counts.sum() / epochs == int(factors.sum())


def test_class_aware_sampling_draws_classes_evenly_and_images_of_a_class_in_turn():
    drawn = [d.image_index for d in draws("class", 1)]
    shows = [{*LABELS[index == IMAGES]} for index in drawn]
    assert len(drawn) == 30
    # Class 2 is in image 3 only, so a third of the draws are that image.
    assert drawn.count(3) >= 10
    assert sum(1 in classes for classes in shows) >= 10
    members = Counter(index for index in drawn if index < 6 and index != 3)
    assert max(members.values()) - min(members[i] for i in (0, 1, 2, 4, 5)) <= 2


def test_running_order_shows_every_image_once_before_any_again():
    drawn = [d for epoch in range(11) for d in draws("running", epoch)]
    indices = [d.image_index for d in drawn]
    passes = [indices[i : i + 11] for i in range(0, len(indices), 11)]
    assert len(passes) == 24
    assert all(sorted(p) == list(range(11)) for p in passes)
    assert len({tuple(p) for p in passes}) == 24, "each pass is a new permutation"
    assert [(d.epoch, d.position) for d in drawn] == [divmod(i, 11) for i in range(len(drawn))]


def test_running_order_shows_images_as_often_as_their_factors_say():
    drawn = [d.image_index for epoch in range(11) for d in draws("weighted", epoch)]
    expected = np.arange(1, 12) * 11 / 66  # of a pass
    for start in range(0, len(drawn), 11):
        counts = np.bincount(drawn[start : start + 11], minlength=11)
        assert (np.floor(expected) <= counts).all() and (counts <= np.ceil(expected)).all()
    assert np.abs(np.bincount(drawn) / 24 - expected).max() < 0.25


def test_running_order_is_the_same_on_eight_ranks():
    for epoch in range(3):
        parts = [draws("running", epoch, rank, 8) for rank in range(8)]
        assert [d for step in zip(*parts, strict=True) for d in step] == draws("running", epoch)


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        ShuffledSampler(4, seed=0, rank=2, world_size=2)


# Written by revision 18081fd, whose samplers were seeded by their class names.
FIRST_DRAWS = {
    "plain": [25, 18, 7, 11, 13, 0, 27, 17, 16, 5, 6, 10],
    "repeat": [24, 18, 21, 15, 4, 12, 26, 0, 22, 27, 5, 16],
    "class": [1, 24, 3, 3, 3, 27, 13, 3, 4, 3, 3, 5],
    "running": [4, 1, 9, 6, 5, 10, 3, 0, 8, 8, 0, 4],
    "aspect": [23, 9, 13, 27, 5, 26, 3, 24, 17, 10, 19, 12],
}


@pytest.mark.parametrize("kind", sorted(FIRST_DRAWS))
def test_an_order_does_not_change_between_revisions(kind):
    kinds = samplers()
    kinds["aspect"] = AspectGroupedSampler(kinds["plain"], np.arange(30) % 7, 2)
    sampler = kinds[kind]
    sampler.set_epoch(1)
    assert [draw.image_index for draw in sampler][:12] == FIRST_DRAWS[kind]
