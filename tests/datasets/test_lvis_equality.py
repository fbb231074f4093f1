"""Our evaluator against the `lvis` package and its recorded numbers."""

import json

import numpy as np
import pytest

from datasets.annotation_json import read_annotations
from datasets.lvis_metrics import METRICS, evaluate_lvis
from datasets.lvis_reference import reference_metrics
from datasets.predictions import Predictions, read_predictions
from tests.fixtures import require_fixture


@pytest.mark.parametrize("case", ["lvis_val_100", "indoor"])
def test_reproduces_recorded_numbers(case):
    expected = json.loads(require_fixture("data/lvis_eval/expected.json").read_text())[case]
    annotations = read_annotations(require_fixture(f"data/lvis_eval/{expected['annotations']}"))
    predictions = read_predictions(require_fixture(f"data/lvis_eval/{expected['predictions']}"))
    metrics = evaluate_lvis(annotations, predictions).metrics
    assert tuple(metrics) == METRICS == tuple(expected["metrics"])
    for name, value in expected["metrics"].items():
        assert metrics[name] == pytest.approx(value, abs=1e-9), name


def random_case(seed: int) -> tuple[dict, list[dict]]:
    """Annotations and predictions full of what decides a rule: ties, ignored boxes, crowding, absent classes.

    Coordinates and scores are coarse so that equal overlaps, overlaps on a threshold and equal scores are
    common.
    """
    rng = np.random.default_rng(seed)
    pictures, classes = int(rng.integers(1, 8)), int(rng.integers(1, 7))
    grid = int(rng.choice([4, 16, 40]))
    images, annotations, results = [], [], []

    def box():
        x, y = rng.integers(0, 6, 2) * grid
        w, h = rng.integers(1, 6, 2) * grid
        return [float(x), float(y), float(w), float(h)]

    first_id = int(rng.choice([0, 1, 50]))
    for image_id in rng.permutation(100)[:pictures]:
        lists = rng.random((2, classes)) < rng.choice([0.1, 0.5, 0.9])
        images.append(
            {
                "id": int(image_id),
                "width": 640,
                "height": 480,
                "file_name": f"{image_id}.jpg",
                "neg_category_ids": (np.flatnonzero(lists[0]) * 3 + 2).tolist(),
                "not_exhaustive_category_ids": (np.flatnonzero(lists[1]) * 3 + 2).tolist(),
            }
        )
        for _ in range(int(rng.integers(0, 12))):
            xywh = box()
            area = xywh[2] * xywh[3] * float(rng.choice([0, 0.5, 1, 1], p=[0.05, 0.25, 0.35, 0.35]))
            annotation = {
                "image_id": int(image_id),
                "bbox": xywh,
                "area": area,
                "id": first_id + len(annotations),
            }
            annotation["category_id"] = int(rng.integers(classes)) * 3 + 2
            if rng.random() < 0.15:
                annotation["ignore"] = 1
            annotations.append(annotation)
        count = 340 if rng.random() < 0.15 else int(rng.integers(0, 60))
        for _ in range(count):
            results.append(
                {
                    "image_id": int(image_id),
                    # One class more than the annotations have: it only uses up places among the 300.
                    "category_id": int(rng.integers(classes + 1)) * 3 + 2,
                    "bbox": box(),
                    "score": float(rng.integers(0, 20)) / 20,
                }
            )
    order = rng.permutation(len(results))
    annotated = [annotations[i] for i in rng.permutation(len(annotations))]
    categories = [
        {
            "id": i * 3 + 2,
            "name": f"class {i}",
            "frequency": str(rng.choice(["r", "c", "f"])),
            "image_count": 1,
        }
        for i in range(classes)
    ]
    content = {"images": images, "annotations": annotated, "categories": categories}
    return content, [results[i] for i in order]


# lvis itself calls the deprecated Logger.warn.
@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
@pytest.mark.parametrize("block", range(8))
def test_equals_the_lvis_package_on_random_cases(block, tmp_path):
    compared = 0
    for seed in range(block * 20, block * 20 + 20):
        content, results = random_case(seed)
        if not results:
            continue
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        expected = reference_metrics(str(path), results)
        metrics = evaluate_lvis(read_annotations(path), Predictions.from_results(results)).metrics
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value, abs=1e-12), (seed, name)
        compared += expected["AP"] > 0
    assert compared > 5, "the cases are too empty to show anything"
