"""The whole data side through its one door, with the real config."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from config.schema import Config
from datasets.build import RunSettings, build_datasets
from tests.datasets import tiny
from util.errors import UserError
from util.structures import PaddedImages, Targets

CONFIG = Config(
    data_aug_scales=(48, 60),
    data_aug_max_size=100,
    data_aug_scales2_resize=(50, 60),
    data_aug_scales2_crop=(30, 50),
    mosaic_size=64,
    rfs_repeat_sh=0.3,
    batch_size=2,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_all(tmp_path_factory.mktemp("data"))


def build(data, config=CONFIG, train=True, class_names=None, **settings):
    return build_datasets(config, RunSettings(str(data), **settings), train=train, class_names=class_names)


def fingerprint(loader, epoch=0):
    loader.set_epoch(epoch)
    return [
        (
            images.sizes,
            images.tensor.sum().item(),
            [(t.image_id, t.image_level, t.boxes_cxcywh.tolist(), t.labels.tolist()) for t in targets],
        )
        for images, targets in loader
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_left(data, workers):
    loader = build(data, num_workers=workers).train_loader
    whole = fingerprint(loader, 1)
    loader.set_epoch(1, 3)
    rest = [images.tensor.sum().item() for images, _ in loader]
    assert rest == [total for _, total, _ in whole[3:]]


def test_image_level_images_of_a_rarer_class_come_more_often(data):
    loader = build(data, replace(CONFIG, image_level_repeat_sh=1.0)).train_loader
    boxes, level = loader.dataset.datasets
    shown = np.unique(np.stack((boxes.boxes.image_index, boxes.boxes.labels)), axis=1)[1]
    images = np.bincount(shown, minlength=level.labels.max() + 1)
    assert len(set(images[level.labels])) > 1
    assert np.allclose(level.factors, np.sqrt(len(boxes) / images[level.labels]))
    assert loader.batch_sampler.image_level.order(0).tolist() != (
        build(data).train_loader.batch_sampler.image_level.order(0).tolist()
    )


def test_the_worst_batch_has_the_most_boxes_on_the_largest_canvas(tmp_path):
    folder = tiny.write_all(tmp_path)
    (path,) = folder.rglob("lvis_v1_train.json")
    content = json.loads(path.read_text())
    # One portrait; the others are 60x80 and become 60x80, or 75x100 in the largest size.
    portrait = content["images"][2]
    portrait["height"], portrait["width"] = 80, 60
    boxes = [a for a in content["annotations"] if a["image_id"] == portrait["id"]]
    extra = [{**boxes[0], "id": 1000 + i, "bbox": [5.0 * i, 5.0, 9.0, 9.0]} for i in range(5)]
    content["annotations"] += extra
    path.write_text(json.dumps(content))
    tiny.draw(path.parents[1] / portrait["coco_url"].split("/", 3)[3], (80, 60), [])
    config = replace(CONFIG, data_aug_scales=(48, 75))
    images, targets = build(folder, config).worst_batch()
    assert images.tensor.shape == (2, 3, 100, 100), "a portrait and a landscape in one batch"
    assert targets.image_ids[0] == portrait["id"] and targets.counts[0] == 6
    for changes in ({"group_by_aspect": True}, {"batch_size": 1}):
        images, _ = build(folder, replace(config, **changes)).worst_batch()
        assert sorted(images.tensor.shape[-2:]) == [75, 100]
    images, targets = build(folder, replace(config, batch_size=8)).worst_batch()
    assert len(targets) == 8


def test_batches_by_aspect_hold_the_same_images(data):
    grouped = fingerprint(build(data, replace(CONFIG, group_by_aspect=True)).train_loader, 1)
    plain = fingerprint(build(data).train_loader, 1)

    def images(batches):
        return sorted(target for _, _, targets in batches for target in targets)

    assert images(grouped) == images(plain)


def test_train_loader_alternates_pure_batches_of_its_true_length(data):
    parts = build(data)
    batches = list(parts.train_loader)
    assert len(batches) == len(parts.train_loader) > 4
    for number, (images, targets) in enumerate(batches):
        assert isinstance(images, PaddedImages) and isinstance(targets, Targets)
        assert images.tensor.dtype == torch.uint8 and images.tensor.shape[:2] == (2, 3)
        assert {t.image_level for t in targets} == {number % 2 == 1}
        for target, size in zip(targets, images.sizes, strict=True):
            assert target.size == size
            assert ((target.boxes_cxcywh >= 0) & (target.boxes_cxcywh <= 1)).all()
            assert (target.boxes_cxcywh[:, 2:] > 0).all()


def test_classes_come_from_the_detection_file_never_from_the_image_level_one(data):
    content = json.loads((data / "imagenet-lvis" / "imagenet_lvis_image_info.json").read_text())
    assert {c["name"] for c in content["categories"]} == {n for n, _, _ in tiny.CLASSES}
    classes = build(data).classes
    assert classes.names == ("red_square", "green_square", "blue_square") and classes.ids == (1, 2, 5)
    assert classes.image_counts == (9, 5, 1) and classes.frequencies == ("f", "c", "r")


def test_batches_do_not_depend_on_the_number_of_workers(data):
    alone, helped = (build(data, num_workers=n).train_loader for n in (0, 2))
    for epoch in (0, 1, 5):
        assert fingerprint(alone, epoch) == fingerprint(helped, epoch)
    assert fingerprint(alone, 0) != fingerprint(alone, 1)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_reading_leaves_the_random_numbers_of_the_model_alone(data, workers):
    loader = build(data, num_workers=workers).train_loader
    before = torch.get_rng_state()
    for _ in range(2):
        assert len(list(loader)) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_can_be_repeated_and_seeds_differ(data):
    parts = build(data)
    assert fingerprint(parts.train_loader, 3) == fingerprint(build(data).train_loader, 3)
    assert fingerprint(parts.train_loader, 3) != fingerprint(build(data, seed=1).train_loader, 3)


@pytest.mark.parametrize("sampling", [{}, {"use_rfs": False}, {"use_rfs": False, "use_cas": True}])
def test_two_ranks_see_what_one_sees(data, sampling):
    config = replace(CONFIG, **sampling)
    single = fingerprint(build(data, replace(config, batch_size=4)).train_loader, 2)
    ranks = [fingerprint(build(data, config, rank=r, world_size=2).train_loader, 2) for r in range(2)]
    assert len(single) == len(ranks[0]) == len(ranks[1]) > 0
    for whole, *parts in zip(single, *ranks, strict=True):
        mixed = [
            target for pair in zip(*(targets for _, _, targets in parts), strict=True) for target in pair
        ]
        assert whole[2] == mixed
        assert whole[1] == pytest.approx(sum(total for _, total, _ in parts), rel=1e-3, abs=0.5)


def test_validation_shows_each_image_once_over_uneven_ranks(data):
    seen = []
    for rank in range(3):
        loader = build(data, train=False, rank=rank, world_size=3).val_loader
        batches = list(loader)
        assert len(batches) == len(loader)
        seen += [t.image_id for _, targets in batches for t in targets]
    assert sorted(seen) == [100, 101, 102, 103, 104]


def test_validation_batches(data):
    loader = build(data, replace(CONFIG, eval_batch_size=2), train=False).val_loader
    assert [len(images) for images, _ in loader] == [2, 2, 1]
    images, targets = next(iter(loader))
    assert images.sizes[0] == (60, 80) and targets[0].original_size == (60, 80)


def test_fix_size_gives_every_detection_image_one_size(data):
    config = replace(CONFIG, use_imagenet=False)
    parts = build(data, config, fix_size=True)
    assert {s for images, _ in parts.train_loader for s in images.sizes} == {(60, 100)}
    assert {s for images, _ in parts.val_loader for s in images.sizes} == {(60, 100)}


def test_evaluation_needs_no_training_data(data, tmp_path):
    tiny.write_detection(tmp_path, "val", 3)
    parts = build(tmp_path, train=False)
    assert parts.train_loader is None and len(parts.val_loader) == 3
    assert {c.train_images for c in parts.record.classes} == {None}


def test_the_record_says_where_the_data_is_and_how_often_classes_are_shown(data):
    record = build(data).record
    assert record.annotations == str(data / "lvis_v1" / "annotations" / "lvis_v1_val.json")
    assert record.data_path == str(data) and record.images == str(data / "lvis_v1")
    counts = [(c.name, c.frequency, c.train_images, c.image_level_images) for c in record.classes]
    assert counts == [("red_square", "f", 9, 3), ("green_square", "c", 5, 2), ("blue_square", "r", 1, 2)]
    without = build(data, replace(CONFIG, use_imagenet=False)).record
    assert [c.image_level_images for c in without.classes] == [0, 0, 0]


def test_open_vocabulary_trains_without_rare_boxes_and_evaluates_with_them(data):
    parts = build(data, dataset_file="lvis_openvocab")
    assert set(parts.train_loader.dataset.datasets[0].boxes.labels.tolist()) == {0, 1}
    assert set(parts.val_loader.dataset.boxes.labels.tolist()) == {0, 1, 2}
    assert set(parts.train_loader.dataset.datasets[1].labels.tolist()) == {0, 1, 2}
    assert len(parts.train_loader.dataset.datasets[0]) == 9 and len(parts.classes) == 3
    # The federated loss draws by these: a class that training never shows is not taught to be absent.
    assert parts.classes.image_counts == (9, 5, 0)
    assert [c.train_images for c in parts.record.classes] == [9, 5, 0]


def test_a_checkpoints_class_order_is_kept(data):
    parts = build(data, class_names=["none", "blue_square", "red_square", "green_square"])
    assert parts.classes.ids == (-1, 5, 1, 2)
    assert set(parts.train_loader.dataset.datasets[0].boxes.labels.tolist()) == {1, 2, 3}
    assert set(parts.train_loader.dataset.datasets[1].labels.tolist()) == {1, 2, 3}


def test_without_mosaic_and_without_the_image_level_stream(data):
    parts = build(data, replace(CONFIG, imagenet_use_mosaic=False))
    assert all(len(t) == 1 for _, targets in parts.train_loader for t in targets if t.image_level)
    parts = build(data, replace(CONFIG, use_imagenet=False))
    assert len(parts.train_loader.dataset.datasets) == 1
    assert not any(t.image_level for _, targets in parts.train_loader for t in targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_in_workers_is_left_out_in_evaluation_and_replaced_in_training(tmp_path, workers, caplog):
    data = tiny.write_all(tmp_path)
    for name in ("train2017/000000000002.png", "val2017/000000000101.png"):
        (data / "lvis_v1" / name).write_bytes(b"\x89PNG not really")
    parts = build(data, num_workers=workers)
    for epoch in range(3):
        parts.train_loader.set_epoch(epoch)
        assert len(list(parts.train_loader)) == len(parts.train_loader)
    assert parts.train_loader.damaged() == ["train2017/000000000002.png"]
    assert [i for batch in parts.val_loader for i in batch[1].image_ids] == [100, 102, 103, 104]
    assert parts.val_loader.damaged() == ["val2017/000000000101.png"] and parts.damaged_val_ids() == [101]


def spoiled(root, split, change):
    path = root / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", lambda c: c["annotations"].clear(), "has no box to train on"),
        ("train", lambda c: c["categories"].pop(), "category id 5, which `categories` does not list"),
        (
            "val",
            lambda c: c["categories"][0].update(name="pink"),
            "class 'pink' of lvis_v1_val.json is not in",
        ),
        ("val", lambda c: (c["images"].clear(), c["annotations"].clear()), "lists no images"),
    ],
)
def test_bad_data_stops_with_one_line(tmp_path, split, change, message):
    data = tiny.write_all(tmp_path)
    spoiled(data, split, change)
    with pytest.raises(UserError, match=message) as caught:
        build(data)
    assert "\n" not in str(caught.value)


def test_settings_that_contradict_the_data(data):
    with pytest.raises(UserError, match="num_classes=7 contradicts"):
        build(data, replace(CONFIG, num_classes=7, dn_labelbook_size=7))
    with pytest.raises(UserError, match="fewer than one batch of 64"):
        build(data, replace(CONFIG, batch_size=64))
    with pytest.raises(UserError, match=r"class 'red_square' .* is not among the 1 classes"):
        build(data, class_names=["blue_square"])


def test_classes_without_a_frequency_get_that_of_their_training_images(tmp_path, caplog):
    data = tiny.write_all(tmp_path)
    for split in ("train", "val"):
        spoiled(data, split, lambda c: [entry.pop("frequency") for entry in c["categories"][1:]])
    with caplog.at_level("INFO"):
        parts = build(data)
    assert parts.classes.frequencies == ("f", "r", "r")
    said = [(c.name, c.frequency, c.image_count) for c in parts.val_annotations.categories]
    assert said == [("red_square", "f", 9), ("green_square", "r", 5), ("blue_square", "r", 1)]
    assert [c.frequency for c in parts.record.classes] == ["f", "r", "r"]
    assert "lvis_v1_train.json: groups by training images: 2 rare classes (up to 10), 0 common" in caplog.text
    open_vocabulary = build(data, dataset_file="lvis_openvocab")
    assert set(open_vocabulary.train_loader.dataset.datasets[0].boxes.labels.tolist()) == {0}
    spoiled(data, "train", lambda c: c["categories"][0].pop("frequency"))
    with pytest.raises(UserError, match="has no box to train on but those of rare classes"):
        build(data, dataset_file="lvis_openvocab")
