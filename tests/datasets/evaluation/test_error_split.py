import numpy as np
import pytest

from datasets.evaluation.error_split import KINDS, kinds_of, split_errors
from datasets.evaluation.evaluator import evaluate_boxes
from datasets.evaluation.judged import judge
from datasets.evaluation.predictions import Predictions
from tests.datasets import tiny
from tests.datasets.evaluation.box_cases import coco_case, detection, lvis_case, perfect

RED, GREEN, BLUE = 1, 2, 5
# Image 1 of the tiny set shows red here; the last image shows one of each.
HERE = (10.0, 8.0, 20.0, 16.0)


def table(count=4, federated=True, **changes):
    content = tiny.detection_content(count, "val")[0]
    for image in content["images"]:
        image.update(changes)
        if not federated:
            del image["neg_category_ids"]
    return tiny.table_of(content, "val.json")


def split(annotations, results):
    result, judged = judge(annotations, Predictions.from_results(results))
    return result, judged, split_errors(judged)


def shifted(bbox, by):
    return [bbox[0] + by, *bbox[1:]]


def spoilt(kind):
    """The perfect detections of the tiny set with one kind of error alone."""
    annotations = table()
    results = perfect(annotations)
    last = next(r for r in results if r["category_id"] == BLUE)
    if kind == "missed":
        results.remove(last)
    elif kind == "background":
        results.append(detection(1, RED, (60.0, 40.0, 9.0, 9.0), 0.9))
    elif kind == "duplicate":
        results.append(detection(2, RED, shifted(HERE, 1.0), 0.4))
        results[-2]["score"] = 0.3
        for r in results:
            r["score"] = 0.3 if r["image_id"] == 3 else r["score"]
    elif kind == "localisation":
        last["bbox"] = shifted(last["bbox"], 13.0)
    elif kind == "classification":
        # The only blue box is taken for a green one, below all that are.
        last["category_id"], last["score"] = GREEN, 0.1
    elif kind == "both":
        # Near a red box and of a class that is known to be absent there.
        results.append(detection(1, GREEN, shifted(HERE, 12.0), 0.9))
    return annotations, results


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_occurs_alone_is_all_that_ap_lacks(kind):
    annotations, results = spoilt(kind)
    result, _, found = split(annotations, results)
    ap, ap50 = result.metrics["AP"], result.metrics["AP50"]
    assert ap50 < 1
    for lacking, share, alone in (
        (1 - ap, found.share, found.alone),
        (1 - ap50, found.share50, found.alone50),
    ):
        share, alone = share.mean(1), alone.mean(1)
        expected = np.where([k == kind for k in KINDS], lacking, 0)
        np.testing.assert_allclose(share, expected, atol=1e-12)
        np.testing.assert_allclose(alone, expected, atol=1e-12)


@pytest.mark.parametrize("make", [lvis_case, coco_case])
def test_shares_sum_to_what_every_class_lacks(make):
    differences = 0
    for seed in range(6):
        content, results = make(seed)
        annotations = tiny.table_of(content, "val.json")
        known = Predictions.from_results(results)
        result, _, found = split(annotations, results)
        assert result.metrics == evaluate_boxes(annotations, known).metrics, "the evaluator's, to the bit"
        ap, ap50 = (np.array([getattr(c, n) for c in result.classes], float) for n in ("ap", "ap50"))
        np.testing.assert_allclose(found.share.sum(0), 1 - ap, atol=1e-9)
        np.testing.assert_allclose(found.share50.sum(0), 1 - ap50, atol=1e-9)
        differences += not np.allclose(found.share, found.alone, equal_nan=True)
    assert differences, "where kinds meet, what each brings alone is another number"


def test_what_lvis_does_not_judge_is_no_error():
    unjudged = table(neg_category_ids=[])
    results = [*perfect(unjudged), detection(1, GREEN, HERE, 0.9)]
    result, judged, found = split(unjudged, results)
    assert result.metrics["AP"] == pytest.approx(1) and found.share == pytest.approx(0, abs=1e-12)
    assert (kinds_of(judged, 0) == -1).all()
    assert judged.boxes.top_row[0] == len(results) - 1, "though it is what the model sees there"
    open_ended = table(not_exhaustive_category_ids=[1])
    results = [*perfect(open_ended), detection(1, RED, (60.0, 40.0, 9.0, 9.0), 0.9)]
    assert split(open_ended, results)[2].counts[:5].sum() == 0
    exhaustive = table(federated=False)
    results = [*perfect(exhaustive), detection(1, GREEN, HERE, 0.9)]
    assert split(exhaustive, results)[2].counts[KINDS.index("classification")].tolist() == [0, 1, 0]


def test_kinds_follow_the_order_of_tide():
    annotations = table()
    boxes = {r["category_id"]: r["bbox"] for r in perfect(annotations) if r["image_id"] == 4}
    extra = {
        # Over red's box with IoU 1, and of a class known to be absent from image 1.
        "classification": detection(1, BLUE, HERE, 0.9),
        "localisation": detection(4, BLUE, shifted(boxes[BLUE], 10.0), 0.9),
        "both": detection(1, BLUE, shifted(HERE, 14.0), 0.8),
        "duplicate": detection(4, BLUE, boxes[BLUE], 0.1),
        "background": detection(1, BLUE, (60.0, 40.0, 9.0, 9.0), 0.7),
    }
    _, _, found = split(annotations, [*perfect(annotations), *extra.values()])
    blue = [c.name for c in annotations.categories].index("blue_square")
    assert found.counts[:, blue].tolist() == [1, 1, 1, 1, 1, 0]
    _, judged, _ = split(annotations, [*perfect(annotations), extra["localisation"]])
    assert (kinds_of(judged, 0) == KINDS.index("localisation")).sum() == 1
    # IoU 0.23: at no threshold anything else.
    assert all((kinds_of(judged, t) == KINDS.index("localisation")).sum() == 1 for t in range(10))


def test_shares_follow_lvis_in_the_rounding_of_recall_levels():
    """35 of 100 boxes do not reach the recall level 0.35, which is a little above 35 / 100."""
    annotations = table(100)
    results = [r for r in perfect(annotations) if r["category_id"] == RED][:35]
    result, _, found = split(annotations, results)
    assert result.classes[0].ap == pytest.approx(35 / 101, abs=1e-12)
    assert found.share[:, 0].sum() == pytest.approx(1 - result.classes[0].ap, abs=1e-12)
