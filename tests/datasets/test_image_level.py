import json

import numpy as np
import pytest
import torch

from datasets.annotations.categories import Category, ClassTable
from datasets.annotations.json_reader import read_annotations
from datasets.augment.mosaic import Mosaic
from datasets.augment.policy import EvalPolicy
from datasets.image_level import ImageLevel
from datasets.images.reader import ImageFolder
from datasets.labelled_sample import LabelledSample
from datasets.sample import SampleIndex
from tests.datasets import tiny
from util.errors import UserError

CATEGORIES = tuple(Category.from_json(c) for c in tiny.categories())


def image_level(root, spoil=None, categories=CATEGORIES, **options):
    path = tiny.write_image_level(root, 7)
    if spoil:
        content = json.loads(path.read_text())
        spoil(content)
        path.write_text(json.dumps(content))
    return ImageLevel(
        read_annotations(path),
        ImageFolder(path.parent / "images"),
        ClassTable.from_categories(categories),
        categories,
        EvalPolicy(60, 200),
        **options,
    )


def test_the_whole_image_is_one_coarse_box(tmp_path):
    data = image_level(tmp_path)
    assert len(data) == 7
    image, target = data[SampleIndex(4)]
    assert image.shape[-2:] == (60, 68) and target.image_level
    assert target.boxes_cxcywh.tolist() == [[0.5, 0.5, 1, 1]] and target.labels.tolist() == [1]
    assert target.image_id == 5


def test_a_mosaic_has_four_labels_and_partners_from_the_whole_set(tmp_path):
    data = image_level(tmp_path, mosaic=Mosaic(size=64))
    seen = set()
    for position in range(40):
        image, target = data[SampleIndex(0, position=position)]
        assert image.shape == (3, 64, 64) and len(target) == 4 and target.image_level
        assert target.image_id == 1 and target.labels[0] == 0
        seen.add(tuple(target.labels.tolist()[1:]))
    assert {label for labels in seen for label in labels} == {0, 1, 2} and len(seen) > 10


def test_factors_weigh_images_in_mosaics(tmp_path):
    factors = np.array([1.0, 0, 3, *[0] * (len(CATEGORIES) - 3)])
    data = image_level(tmp_path, mosaic=Mosaic(size=64), class_factors=factors)
    assert data.factors.tolist() == factors[data.labels].tolist()
    draws = (data[SampleIndex(0, position=position)][1].labels[1:] for position in range(80))
    counts = torch.bincount(torch.cat(list(draws)), minlength=3)
    images = np.bincount(data.labels, minlength=3)
    assert counts[1] == 0 and counts.sum() == 240
    expected = 240 * 3 * images[2] / (images[0] + 3 * images[2])
    assert abs(counts[2] - expected) < 4 * expected**0.5


def test_a_draw_fixes_the_mosaic(tmp_path):
    data = image_level(tmp_path, mosaic=Mosaic(size=64), seed=3)
    first, second = (data[SampleIndex(2, 1, 5)] for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1].boxes_cxcywh, second[1].boxes_cxcywh)
    other = image_level(tmp_path, mosaic=Mosaic(size=64), seed=4)[SampleIndex(2, 1, 5)]
    assert not torch.equal(first[0], other[0])


def test_ids_of_its_own_are_matched_by_name_and_synset(tmp_path):
    def renumber(content):
        for entry in content["categories"]:
            entry["id"] += 70
        content["categories"][1]["name"] = "something else"  # the synset still says what it is
        for image in content["images"]:
            image["pos_category_ids"][0] += 70

    assert image_level(tmp_path, renumber).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_unlabelled_and_unmatched_images_are_counted_and_left_out(tmp_path, caplog):
    def spoil(content):
        content["images"][0]["pos_category_ids"] = []
        del content["images"][1]["pos_category_ids"]

    data = image_level(tmp_path, spoil, CATEGORIES[:2])
    assert data.labels.tolist() == [0, 1, 0]
    assert data[SampleIndex(0)][1].image_id == 4
    assert "2 images have no label" in caplog.text
    assert "2 images of 1 classes match no detection class and are skipped: 'blue_square'" in caplog.text


def test_no_class_in_common_is_an_error(tmp_path):
    with pytest.raises(UserError, match="none of its 7 images has a class of the model"):
        image_level(tmp_path, categories=(Category(1, "zebra"),))


def test_damaged_partners_are_named_and_counted(tmp_path):
    data = image_level(tmp_path, mosaic=Mosaic(size=64))
    (tmp_path / "imagenet-lvis" / "images" / "blue_square" / "2.png").write_bytes(b"junk")
    for position in range(20):
        data[SampleIndex(0, position=position)]
    assert data.damaged_names() == ["blue_square/2.png"]


def test_a_sample_for_the_teacher_takes_classes_in_turn_and_changes_nothing(tmp_path):
    data = image_level(tmp_path, mosaic=Mosaic(size=64), seed=3)
    before = data[SampleIndex(2, 1, 5)]
    sample = LabelledSample(data, side=30)
    shown = list(sample.batches(most=100))
    assert len(shown) == len(data)
    assert all(images.tensor.shape[-2] == 30 or images.tensor.shape[-1] == 30 for images, _ in shown)
    labels = [int(targets.labels) for _, targets in shown]
    assert sorted(labels) == sorted(data.labels.tolist())
    classes = len(set(labels))
    assert len(set(labels[:classes])) == classes  # each once before any again
    few = list(sample.batches(most=100, per_class=1))
    assert [int(t.labels) for _, t in few] == labels[:classes]
    again = list(sample.batches(most=2))
    assert all(torch.equal(a[0].tensor, b[0].tensor) for a, b in zip(again, shown, strict=False))
    assert torch.equal(data[SampleIndex(2, 1, 5)][0], before[0])
