"""The generated annotation files: sizes as asked, a long tail, lists that agree with the boxes."""

import json

import numpy as np

from benchmarks.lvis_files import CLASSES, TRAIN, draw_lvis, images_by_class, write_lvis
from datasets.annotations.json_reader import read_annotations


def test_a_small_file_reads_as_what_was_drawn(tmp_path):
    columns = write_lvis(tmp_path / "train.json", 60, 500, classes=40, seed=3)
    store = read_annotations(tmp_path / "train.json")
    assert np.array_equal(store.image_ids, columns.image_ids) and len(store.areas) == 500
    order = np.argsort(columns.image, kind="stable")
    assert np.array_equal(store.boxes_xywh, columns.boxes_xywh[order])
    assert np.array_equal(store.category_ids[store.category_index], columns.category[order])
    assert np.array_equal(store.sizes[:, 0], columns.heights)
    assert [c.image_count for c in store.categories] == columns.image_counts.tolist()
    for image in range(60):
        shown = set(columns.category[columns.image == image].tolist())
        assert shown.isdisjoint(columns.negatives[image])
        assert shown.issuperset(columns.not_exhaustive[image])
        assert store.category_ids[store.negatives[image]].tolist() == columns.negatives[image]


def test_the_same_arguments_give_the_same_file_and_seeds_differ(tmp_path):
    texts = []
    for number, seed in enumerate((0, 0, 1)):
        write_lvis(tmp_path / f"{number}.json", 20, 90, classes=10, seed=seed)
        texts.append((tmp_path / f"{number}.json").read_text())
    assert texts[0] == texts[1] != texts[2]
    assert json.loads(texts[0])["annotations"][0]["segmentation"]


def test_full_size_has_the_tail_of_lvis():
    counts = images_by_class(TRAIN.images, CLASSES)
    assert 300 < np.count_nonzero(counts <= 10) < 370 and counts.min() == 1 and counts.max() == 1977


def test_boxes_lie_inside_their_images_and_every_class_is_shown():
    columns = draw_lvis(2000, 25_000)
    assert columns.image_counts.min() >= 1 and len(columns.category) == 25_000
    x, y, w, h = columns.boxes_xywh.T
    assert (w > 0).all() and (h > 0).all() and (x >= 0).all() and (y >= 0).all()
    assert (x + w <= columns.widths[columns.image] + 1e-9).all()
    assert (y + h <= columns.heights[columns.image] + 1e-9).all()
