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
        found = WeightedAP(judged)(np.full(len(annotations), 0.3))
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
    low, high = interval(one[:, evaluated].mean(1), 0.4)
    assert low < 0.4 < high
    assert not np.array_equal(one, bootstrap([judged], 60, seed=1)[0], equal_nan=True)


def test_the_interval_is_as_wide_as_other_images_make_it():
    """A class of one detection an image: AP is near the share that is right; its deviation is known."""
    rng = np.random.default_rng(0)
    share = rng.exponential(size=(4000, 100)) @ (rng.random(100) < 0.4) / 100
    low, high = interval(share, 0.4)
    assert high - low == pytest.approx(2 * 1.96 * share.std(), rel=0.1)
    assert (low + high) / 2 == pytest.approx(0.4, abs=0.02)
