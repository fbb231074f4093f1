"""The two sets of half the labels, and the table."""

from benchmarks.partial_labels import METRICS, VARIANTS, at_score, half_labelled, half_of_class, summary
from datasets.evaluation.judged import judge
from datasets.evaluation.predictions import Predictions
from tests.datasets import tiny


def test_halves_share_no_image_and_no_class_and_lose_no_box_of_their_own():
    content, _ = tiny.detection_content(6, "train")
    halves = half_of_class(content["categories"])
    assert halves == {1: 0, 2: 1, 5: 0}, "by the number of images, in turn"
    first, second = (half_labelled(content, half, halves) for half in (0, 1))
    assert [i["id"] for i in first["images"]] == [1, 3, 5] and [i["id"] for i in second["images"]] == [
        2,
        4,
        6,
    ]
    assert [(a["image_id"], a["category_id"]) for a in second["annotations"]] == [(2, 2), (4, 2), (6, 2)]
    assert {a["category_id"] for a in first["annotations"]} == {1}
    assert [c["id"] for c in first["categories"]] == [1, 5]
    assert second["images"][0]["file_name"] == "train2017/000000000002.png"


def test_the_table_gives_means_and_the_share_of_the_gap():
    values = {"plain": (0.1, 0.2), "judged": (0.2, 0.3), "full": (0.3, 0.5)}
    lines = summary({name: [dict.fromkeys(METRICS, v) for v in pair] for name, pair in values.items()})
    assert "| AP | 15.0 (10.0, 20.0) | 25.0 (20.0, 30.0) | 40.0 (30.0, 50.0) | 40% |" in lines.splitlines()


def test_without_a_gap_there_is_no_share():
    found = {name: [dict.fromkeys(METRICS, 0.2)] for name in VARIANTS}
    assert "| APr | 20.0 (20.0) | 20.0 (20.0) | 20.0 (20.0) |  |" in summary(found).splitlines()


def test_recall_and_precision_from_a_score_on(tmp_path):
    """Of five boxes; above the score one is found and one detection is false."""
    content, _ = tiny.detection_content(3, "val")
    table = tiny.table_of(content, "val.json")
    boxes = [{k: a[k] for k in ("image_id", "category_id", "bbox")} for a in content["annotations"]]
    assert len(boxes) == 5
    # The second is where there is nothing, and the third is right but too weak.
    boxes[1]["bbox"] = [60, 0, 15, 15]
    results = [{**box, "score": score} for box, score in zip(boxes, (0.9, 0.5, 0.2), strict=False)]
    _, judged = judge(table, Predictions.from_results(results))
    recall, precision, f1 = at_score(judged).values()
    assert (recall, precision, f1) == (1 / 5, 1 / 2, 2 / 7)
