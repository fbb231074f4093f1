import json

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.annotations.categories import ClassTable
from datasets.annotations.json_reader import read_annotations
from datasets.augment.policy import EvalPolicy
from datasets.detection import DetectionDataset, TrainingBoxes
from datasets.images.damaged import MAX_DAMAGED_IN_A_ROW, too_many_damaged
from datasets.images.reader import ImageFolder
from datasets.sample import SampleIndex
from tests.datasets import tiny
from util.errors import UserError


def usable(boxes, **options):
    """TrainingBoxes of one 80 x 60 image with red boxes, and the store."""
    content, _ = tiny.detection_content(1, "train")
    base = content["annotations"][0]
    content["annotations"] = [dict(base, id=10 + i, bbox=b) for i, b in enumerate(boxes)]
    store = tiny.table_of(content, "train.json")
    return TrainingBoxes(store, ClassTable.from_categories(store.categories), **options)


def test_boxes_outside_and_without_size_are_clipped_or_dropped_and_counted(caplog):
    boxes = usable(
        [
            [10, 10, 20, 20],
            [70, 50, 30, 30],
            [-5, -5, 10, 10],
            [90, 10, 5, 5],
            [10, 10, 0, 5],
            [10, 10, 5, -3],
            [float("nan"), 10, 5, 5],
            [10, 10, float("inf"), 5],
        ]
    )
    assert boxes.boxes_xyxy.tolist() == [[10, 10, 30, 30], [70, 50, 80, 60], [0, 0, 5, 5]]
    assert boxes.labels.tolist() == [0, 0, 0] and boxes.image_index.tolist() == [0, 0, 0]
    messages = [r.getMessage() for r in caplog.records]
    assert messages == [
        "train.json: 2 boxes reach outside their image and are clipped (first: annotation 11)",
        "train.json: 5 boxes have no size inside their image and are dropped (first: annotation 13)",
    ]


def test_rounding_at_the_border_is_not_reported(caplog):
    assert len(usable([[60.0, 40.0, 20.4, 20.3]])) == 1
    assert not caplog.records


def test_open_vocabulary_leaves_out_rare_boxes_only():
    content, _ = tiny.detection_content(4, "train")
    store = tiny.table_of(content, "train.json")
    classes = ClassTable.from_categories(store.categories)
    assert sorted(set(TrainingBoxes(store, classes).labels.tolist())) == [0, 1, 2]
    without = TrainingBoxes(store, classes, rare=False)
    assert sorted(set(without.labels.tolist())) == [0, 1] and len(without) == 6


def test_crowds_and_classes_that_the_model_lacks_are_left_out():
    content, _ = tiny.detection_content(4, "train")
    content["annotations"][0]["iscrowd"] = 1
    store = tiny.table_of(content, "train.json")
    classes = ClassTable.from_categories([c for c in store.categories if c.id != 2])
    boxes = TrainingBoxes(store, classes)
    assert len(boxes) == 7 - 1 - 2
    assert boxes.labels.tolist() == [0, 0, 0, 1]


@pytest.fixture
def dataset(tmp_path):
    def make(**options):
        path = tiny.write_detection(tmp_path, "train", 6)
        store = read_annotations(path)
        return DetectionDataset(
            store,
            ImageFolder(tmp_path / "lvis_v1"),
            ClassTable.from_categories(store.categories),
            EvalPolicy(120, 400),
            **options,
        )

    return make


def test_boxes_lie_on_what_is_drawn(dataset):
    image, target = dataset()[SampleIndex(5)]
    assert image.shape == (3, 120, 160) and target.image_id == 6 and target.original_size == (60, 80)
    assert target.labels.tolist() == [0, 1, 2]
    brightest = image.argmax(0)
    for (cx, cy, *_), label in zip(target.boxes_cxcywh.tolist(), target.labels.tolist(), strict=True):
        assert brightest[int(cy * 120), int(cx * 160)] == label


def spoil(dataset, image, how):
    path = dataset.images.root / dataset.annotations.file_names[image]
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif how == "not an image":
        path.write_text("<html>404</html>")
    elif how == "missing":
        path.unlink()
    else:
        tiny.draw(path, (61, 80), [])
    return path


FAULTS = {
    "truncated": "does not decode",
    "not an image": "does not decode",
    "missing": "no such image",
    "size": "is 80x61 pixels, its annotations say 80x60",
}


@pytest.mark.parametrize("how", FAULTS)
def test_evaluation_leaves_a_damaged_image_out_and_names_it(dataset, how, caplog):
    data = dataset(evaluation=True)
    path = spoil(data, 2, how)
    assert data[SampleIndex(2)] is None and data[SampleIndex(1)] is not None
    assert data.damaged_names() + data.missing_names() == [
        "train2017/000000000003.png"
    ] and data.damaged_ids() == [3]
    (line,) = [r.getMessage() for r in caplog.records if str(path) in r.getMessage()]
    assert FAULTS[how] in line and "the metrics leave it out" in line and "\n" not in line


@pytest.mark.parametrize("how", FAULTS)
def test_training_names_and_counts_a_damaged_image_and_goes_on(dataset, how, caplog):
    data = dataset()
    path = spoil(data, 2, how)
    image, target = data[SampleIndex(2, epoch=1, position=8)]
    again, _ = data[SampleIndex(2, epoch=1, position=8)]
    assert target.image_id != 3 and torch.equal(image, again), "the image in its place is always the same"
    assert len({data[SampleIndex(2, epoch=1, position=p)][1].image_id for p in range(30)}) > 2
    assert (
        data.damaged_names() + data.missing_names() == ["train2017/000000000003.png"]
        and len(data.damaged) == 1
    )
    assert sum(str(path) in r.getMessage() for r in caplog.records) == 1, "named once"


@pytest.mark.parametrize("evaluation", [False, True])
def test_too_many_damaged_images_are_an_error(dataset, evaluation):
    data = dataset(evaluation=evaluation, max_damaged_share=0.5)
    for image in range(3):
        spoil(data, image, "truncated")
    for image in range(6):
        data[SampleIndex(image)]
    spoil(data, 3, "truncated")
    with pytest.raises(
        UserError, match=r"^lvis_v1_train.json: 4 of the 6 images .* max_damaged_share=0.5 of them; the last:"
    ):
        data[SampleIndex(3)]


@pytest.mark.parametrize(
    ("damaged", "seen", "count", "share", "too_many"),
    [
        (3, 36, 36, 0.1, False),
        (4, 36, 36, 0.1, True),  # 3.6 are allowed
        (3, 5, 5, 0.1, False),  # a few are no share
        (10, 12, 100_000, 0.1, True),  # long before a tenth of all of them is damaged
        (9, 9, 100_000, 0.1, False),
        (20, 150, 100_000, 0.1, False),  # chance alone does that at a share of 0.1
        (30, 150, 100_000, 0.1, True),
        (10_001, 50_000, 100_000, 0.1, True),
        (1, 1, 100_000, 0.0, True),
        (100, 100, 100, 1.0, False),
    ],
)
def test_when_damaged_images_are_too_many(damaged, seen, count, share, too_many):
    assert too_many_damaged(damaged, seen, count, share) == too_many


def test_nothing_but_damaged_images_is_an_error(dataset):
    data = dataset()
    for image in range(6):
        spoil(data, image, "missing")
    with pytest.raises(UserError, match=f"{MAX_DAMAGED_IN_A_ROW} images in a row cannot be used"):
        data[SampleIndex(0)]


def test_a_size_that_the_file_does_not_say_is_taken_from_the_image(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 2)
    content = json.loads(path.read_text())
    for image in content["images"]:
        del image["width"], image["height"]
    content["annotations"][0]["bbox"] = [70, 50, 100, 100]
    path.write_text(json.dumps(content))
    store = read_annotations(path)
    classes = ClassTable.from_categories(store.categories)
    data = DetectionDataset(
        store, ImageFolder(tmp_path / "lvis_v1"), classes, EvalPolicy(60, 80), evaluation=True
    )
    _, target = data[SampleIndex(0)]
    assert np.allclose(target.boxes_cxcywh.numpy(), [[75 / 80, 55 / 60, 10 / 80, 10 / 60]], atol=1e-6)


def test_scaled_decoding_changes_neither_sizes_nor_boxes(tmp_path, dataset):
    plain, drafted = dataset(), dataset(draft=True)
    for data in (plain, drafted):
        data.policy = EvalPolicy(30, 400)
    shades = np.linspace(0, 255, 80 * 60 * 3).reshape(60, 80, 3).astype(np.uint8)
    for name in (plain.annotations.file_names[i] for i in range(6)):
        Image.fromarray(shades).save(tmp_path / "lvis_v1" / name, "JPEG")
    decoded = drafted.images.open(plain.annotations.file_names[0]).decode((30, 40))
    assert decoded.shape == (30, 40, 3), "half of the file's size is what the resize needs"
    (whole, expected), (image, target) = plain[SampleIndex(5)], drafted[SampleIndex(5)]
    assert image.shape == whole.shape == (3, 30, 40)
    assert (image.int() - whole.int()).abs().float().mean() < 4
    assert torch.equal(target.boxes_cxcywh, expected.boxes_cxcywh)
    assert (target.size, target.original_size) == (expected.size, expected.original_size)
