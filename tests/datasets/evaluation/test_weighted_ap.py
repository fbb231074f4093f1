import numpy as np
import pytest

from datasets.evaluation.evaluator import evaluate_boxes
from datasets.evaluation.judged import judge
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.weighted_ap import WeightedAP, bootstrap, interval
from tests.datasets import tiny
from tests.datasets.evaluation.box_cases import coco_case, lvis_case


def aps(result):
    return np.array([c.ap for c in result.classes], float)


def repeated(content, results, times):
    """Image i `times[i]` times over, each under an id of its own."""
    images, annotations, found = [], [], []
    for image, number in zip(sorted(content["images"], key=lambda i: i["id"]), times, strict=True):
        for copy in range(number):
            identity = 1000 * image["id"] + copy
            images.append({**image, "id": identity, "file_name": f"{identity}.jpg"})
            annotations += [
                {**a, "image_id": identity} for a in content["annotations"] if a["image_id"] == image["id"]
            ]
            found += [{**r, "image_id": identity} for r in results if r["image_id"] == image["id"]]
    annotations = [{**a, "id": number} for number, a in enumerate(annotations, 1)]
    return {**content, "images": images, "annotations": annotations}, found


@pytest.mark.parametrize("make", [lvis_case, coco_case])
def test_equal_weights_give_the_evaluators_ap(make):
    for seed in range(4):
        content, results = make(seed)
        annotations = tiny.table_of(content, "val.json")
        result, judged = judge(annotations, Predictions.from_results(results))
        found = WeightedAP(judged)(np.full(len(annotations), 0.5))
        np.testing.assert_allclose(found, aps(result), atol=1e-9)


@pytest.mark.parametrize("make", [lvis_case, coco_case])
def test_a_weight_of_two_is_an_image_that_occurs_twice(make):
    rng = np.random.default_rng(1)
    for seed in range(3):
        content, results = make(seed)
        # Equal scores of different images would change places.
        for row, result in enumerate(results):
            result["score"] = (result["score"] + row * 1e-5) / 2
        annotations = tiny.table_of(content, "val.json")
        _, judged = judge(annotations, Predictions.from_results(results))
        times = rng.integers(1, 4, len(annotations))
        twice, found = repeated(content, results, times)
        expected = evaluate_boxes(tiny.table_of(twice, "val.json"), Predictions.from_results(found))
        # The first copy of a true positive reaches its recall one detection earlier.
        np.testing.assert_allclose(WeightedAP(judged)(times.astype(float)), aps(expected), atol=0.02)


def test_intervals_hold_the_ap_and_pairs_share_their_weights():
    content, results = lvis_case(3)
    annotations = tiny.table_of(content, "val.json")
    _, judged = judge(annotations, Predictions.from_results(results))
    one, two = bootstrap([judged, judged], 60)
    np.testing.assert_array_equal(one, two)
    assert one.shape == (60, len(annotations.categories))
    evaluated = judged.num_boxes > 0
    assert np.isnan(one[:, ~evaluated]).all() and np.isfinite(one[:, evaluated]).all()
    ap = WeightedAP(judged)(np.ones(len(annotations)))[evaluated].mean()
    low, high = interval(one[:, evaluated].mean(1))
    assert low < ap < high
    assert not np.array_equal(one, bootstrap([judged], 60, seed=1)[0], equal_nan=True)


def test_replicas_scatter_as_much_as_other_images_do():
    """Boxes of `n` images, each found or not by the toss of a coin: AP is near the share that is found."""
    rng = np.random.default_rng(0)
    content = tiny.detection_content(600, "val")[0]
    boxes = [a for a in content["annotations"] if a["category_id"] == 1]
    for number, box in enumerate(boxes):
        # Three classes of 2, 5 and 60 images in every part.
        box["category_id"] = (1, 2, 5)[np.searchsorted((2, 7, 67), number % 67, side="right")]
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5}
        for a in boxes
        if rng.random() < 0.5
    ]
    said = []
    for part in range(8):
        ids = {a["image_id"] for a in boxes[67 * part : 67 * (part + 1)]}
        only = {**content, "images": [i for i in content["images"] if i["id"] in ids]}
        only["annotations"] = [a for a in boxes if a["image_id"] in ids]
        found = Predictions.from_results([r for r in results if r["image_id"] in ids])
        _, judged = judge(tiny.table_of(only, "val.json"), found)
        assert judged.images_of_class.tolist() == [2, 5, 60]
        replicas = bootstrap([judged], 100)[0]
        said.append(replicas.var(0))
    expected = 0.25 / np.array([2, 5, 60])
    np.testing.assert_allclose(np.mean(said, 0), expected, rtol=0.5)
