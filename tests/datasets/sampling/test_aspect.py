import numpy as np
import pytest

from datasets.sampling.aspect import WINDOW, AspectGroupedSampler, aspects_of
from datasets.sampling.mixing import MixedBatchSampler
from datasets.sampling.samplers import RepeatFactorSampler, ShuffledSampler

IMAGES = 1003
ASPECTS = np.random.default_rng(0).uniform(0.5, 2, IMAGES)


def batches(rank=0, world_size=1, batch_size=4, epoch=0, grouped=True):
    sampler = ShuffledSampler(IMAGES, seed=5, rank=rank, world_size=world_size)
    if grouped:
        sampler = AspectGroupedSampler(sampler, ASPECTS, batch_size)
    mixed = MixedBatchSampler(sampler, batch_size)
    mixed.set_epoch(epoch)
    drawn = list(mixed)
    assert len(drawn) == len(mixed) == IMAGES // world_size // batch_size
    return drawn


def spread(drawn) -> float:
    """Mean over the batches of the largest ratio of aspects in a batch."""
    aspects = [ASPECTS[[d.image_index for d in batch]] for batch in drawn]
    return float(np.mean([a.max() / a.min() for a in aspects]))


def test_images_of_a_batch_are_alike_and_the_epoch_is_the_same():
    grouped, plain = batches(), batches(grouped=False)
    assert spread(grouped) < 1.1 < 2 < spread(plain)
    assert sorted(d for batch in grouped for d in batch) == sorted(d for batch in plain for d in batch)
    # Each stays near its place: the order is as random as before.
    moved = [abs(d.position - 4 * number) for number, batch in enumerate(grouped) for d in batch]
    assert max(moved) < WINDOW * 4


@pytest.mark.parametrize("epoch", [0, 3])
def test_global_batches_are_the_same_on_one_and_four_ranks(epoch):
    ranks = [batches(r, 4, batch_size=1, epoch=epoch) for r in range(4)]
    assert [[d for b in step for d in b] for step in zip(*ranks, strict=True)] == batches(epoch=epoch)


def test_epochs_differ_and_repeat_by_number():
    assert batches(epoch=1) == batches(epoch=1) != batches(epoch=2)
    # Neither do batches come sorted.
    means = [ASPECTS[[d.image_index for d in batch]].mean() for batch in batches()]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_other_samplers_and_fewer_images_than_a_batch():
    factors = np.where(ASPECTS > 1.9, 2.5, 1.0)
    inner = RepeatFactorSampler(factors, seed=1)
    sampler = AspectGroupedSampler(inner, ASPECTS, 8)
    assert sorted(sampler) == sorted(inner) and len(sampler) == len(inner)
    assert np.array_equal(np.sort(sampler.order(0)), np.sort(inner.order(0)))
    few = ShuffledSampler(3, seed=1)
    assert list(AspectGroupedSampler(few, ASPECTS, 8)) == list(few)


def test_aspects_of_unknown_sizes_are_one():
    assert aspects_of(np.array([[480, 640], [0, 0], [100, 50]])).tolist() == [0.75, 1, 2]
