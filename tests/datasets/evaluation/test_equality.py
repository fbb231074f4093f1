"""Our evaluators against the `lvis` package, its recorded metrics, and pycocotools."""

import json

import numpy as np
import pytest

from datasets.annotations.json_reader import read_annotations
from datasets.evaluation import detection_batches, matching, overlap
from datasets.evaluation.coco import METRICS as COCO_METRICS
from datasets.evaluation.coco import evaluate_coco
from datasets.evaluation.evaluator import evaluate_boxes
from datasets.evaluation.lvis import METRICS, evaluate_lvis
from datasets.evaluation.predictions import Predictions, read_predictions
from datasets.evaluation.reference import coco_reference_metrics, reference_metrics
from tests.datasets import tiny
from tests.datasets.evaluation.box_cases import coco_case, lvis_case
from tests.fixtures import require_fixture


@pytest.mark.parametrize("case", ["lvis_val_100", "indoor"])
def test_reproduces_recorded_numbers(case):
    expected = json.loads(require_fixture("data/lvis_eval/expected.json").read_text())[case]
    annotations = read_annotations(require_fixture(f"data/lvis_eval/{expected['annotations']}"))
    predictions = read_predictions(require_fixture(f"data/lvis_eval/{expected['predictions']}"))
    metrics = evaluate_lvis(annotations, predictions).metrics
    assert tuple(metrics) == METRICS == tuple(expected["metrics"])
    for name, value in expected["metrics"].items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name


def compare(seed, path, case, reference, evaluate) -> bool:
    """Asserts equal metrics; whether the case has any true positive."""
    content, results = case(seed)
    if not results or not content["annotations"]:
        return False
    path.write_text(json.dumps(content))
    expected = reference(str(path), results)
    metrics = evaluate(read_annotations(path), Predictions.from_results(results)).metrics
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), (seed, name)
    return expected["AP"] > 0


# lvis itself calls the deprecated Logger.warn.
@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
@pytest.mark.parametrize("block", range(8))
def test_equals_the_lvis_package_on_random_cases(block, tmp_path):
    seeds = range(block * 20, block * 20 + 20)
    found = [compare(s, tmp_path / "a.json", lvis_case, reference_metrics, evaluate_lvis) for s in seeds]
    assert sum(found) > 5, "the cases are too empty to show anything"


@pytest.mark.parametrize("block", range(4))
def test_equals_pycocotools_on_random_cases(block, tmp_path):
    seeds = range(block * 20, block * 20 + 20)
    found = [compare(s, tmp_path / "a.json", coco_case, coco_reference_metrics, evaluate_coco) for s in seeds]
    assert sum(found) > 5, "the cases are too empty to show anything"


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
@pytest.mark.parametrize("federated", [True, False])
def test_annotation_id_0_is_a_match_here_and_none_in_the_packages(tmp_path, federated):
    boxes = [[x, 30 + i, 100, 200] for i, x in enumerate(range(0, 400, 40))]
    image = {"id": 0, "width": 1000, "height": 800, "file_name": "a.jpg"}
    content = {
        "images": [
            image | ({"neg_category_ids": [], "not_exhaustive_category_ids": []} if federated else {})
        ],
        "categories": [{"id": 0, "name": "person", "frequency": "f"}],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 0, "bbox": box, "area": 20000, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    results = [
        {"image_id": 0, "category_id": 0, "bbox": b, "score": 0.9 - i / 100} for i, b in enumerate(boxes)
    ]
    path = tmp_path / "a.json"
    found, theirs = [], []
    for first in (0, 1):
        for i, annotation in enumerate(content["annotations"], first):
            annotation["id"] = i
        path.write_text(json.dumps(content))
        found.append(evaluate_boxes(read_annotations(path), Predictions.from_results(results)).metrics)
        package = reference_metrics if federated else coco_reference_metrics
        theirs.append(package(str(path), results)["AP"])
    assert found[0] == found[1] and found[0]["AP"] == pytest.approx(1.0)
    assert theirs[1] == pytest.approx(1.0) and theirs[0] < 0.95


def test_labelled_classes_are_evaluated_as_verified_absent_ones_are(tmp_path):
    for seed in range(10):
        content, results = lvis_case(seed)
        if not results:
            continue
        listed = json.loads(json.dumps(content))
        for image in listed["images"][1:]:
            image["labelled_category_ids"] = image.pop("neg_category_ids")
        metrics = []
        for name, written in (("negatives", content), ("labelled", listed)):
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(written))
            metrics.append(evaluate_lvis(read_annotations(path), Predictions.from_results(results)).metrics)
        assert metrics[0] == metrics[1], seed


def test_a_crowd_of_an_image_with_labelled_classes_is_ignored_as_in_coco(tmp_path):
    content = {
        "categories": [{"id": 1, "name": "egg"}],
        "images": [{"id": 1, "file_name": "a.jpg", "labelled_category_ids": [1]}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 0, 50, 50], "area": 2500, "iscrowd": 1},
        ],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}]
    assert evaluate_lvis(read_annotations(path), Predictions.from_results(results)).metrics["AP"] > 0.999


def test_small_batches_change_nothing(monkeypatch):
    """Real sizes take many batches of images and pairs; here the batches are small instead."""
    cases = [(evaluate_lvis, lvis_case(s)) for s in range(10)] + [
        (evaluate_coco, coco_case(s)) for s in range(10)
    ]

    def metrics():
        found = []
        for evaluate, (content, results) in cases:
            predictions = Predictions.from_results(results)
            found.append(evaluate(tiny.table_of(content, "a.json"), predictions).metrics)
        return found

    whole = metrics()
    monkeypatch.setattr(detection_batches, "_BATCH_SIZE", 25)
    for module in (matching, overlap):
        monkeypatch.setattr(module, "PAIRS_AT_ONCE", 7)
    assert metrics() == whole


def fixed_ap_reference(path, content, results, limit):
    """As the authors of Fixed AP compute it: the best of each class, sorted, then lvis without a cap."""
    from datasets.evaluation.reference import lvis_package

    lvis = lvis_package()
    path.write_text(json.dumps(content))
    best = []
    for category in content["categories"]:
        of_class = [r for r in results if r["category_id"] == category["id"]]
        best += sorted(of_class, key=lambda r: r["score"], reverse=True)[:limit]
    gt = lvis.LVIS(str(path))
    evaluation = lvis.LVISEval(gt, lvis.LVISResults(gt, best, max_dets=-1), "bbox")
    evaluation.run()
    return {f"Fixed{k}": float(v) for k, v in evaluation.get_results().items() if k.startswith("AP")}


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
@pytest.mark.parametrize("limit", [1, 15, 10_000])
def test_fixed_ap_keeps_the_best_of_a_class_instead_of_an_image(limit, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.evaluation.lvis.FIXED_AP_MAX_DETS", limit)
    different = 0
    for seed in range(15):
        content, results = lvis_case(seed)
        known = {c["id"] for c in content["categories"]}
        if not any(r["category_id"] in known for r in results):
            continue
        annotations, predictions = tiny.table_of(content, "a.json"), Predictions.from_results(results)
        metrics = evaluate_lvis(annotations, predictions, fixed_ap=True).metrics
        expected = fixed_ap_reference(tmp_path / "a.json", content, results, limit)
        assert {k: v for k, v in metrics.items() if k in expected} == pytest.approx(expected, abs=1e-12), seed
        plain = evaluate_lvis(annotations, predictions).metrics
        assert {k: metrics[k] for k in METRICS} == plain, "the others stay as they were"
        different += metrics["FixedAP"] != metrics["AP"]
    assert different, "no case shows the difference"


def test_every_class_has_its_own_numbers():
    content, results = lvis_case(3)
    annotations, predictions = tiny.table_of(content, "a.json"), Predictions.from_results(results)
    result = evaluate_lvis(annotations, predictions)
    known = [c.ap for c in result.classes if c.ap is not None]
    assert np.mean(known) == pytest.approx(result.metrics["AP"], abs=1e-12)
    for frequency in "rcf":
        of_group = [c.ap for c in result.classes if c.frequency == frequency and c.ap is not None]
        assert (np.mean(of_group) if of_group else -1) == pytest.approx(result.metrics[f"AP{frequency}"])
    assert [c.name for c in result.classes] == [c["name"] for c in content["categories"]]
    counted = [a for a in content["annotations"] if a["area"] > 0 and not a.get("ignore")]
    assert sum(c.boxes for c in result.classes) == len(counted)


def test_coco_metrics_are_named_for_what_they_are_and_frequencies_follow():
    content, results = coco_case(4)
    result = evaluate_coco(tiny.table_of(content, "a.json"), Predictions.from_results(results))
    assert tuple(result.metrics) == (*COCO_METRICS[:6], "APr", "APc", "APf", *COCO_METRICS[6:])
    for category in content["categories"]:
        del category["frequency"]
    plain = evaluate_coco(tiny.table_of(content, "a.json"), Predictions.from_results(results)).metrics
    assert tuple(plain) == COCO_METRICS and plain["AP"] == result.metrics["AP"]
    assert "COCO" in result.protocols[0]
