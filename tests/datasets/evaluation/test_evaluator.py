import json
import logging
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch

from datasets.annotations.categories import ClassTable
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.json_stream import read_list
from datasets.evaluation.evaluator import BoxEvaluator
from datasets.evaluation.lvis import METRICS, evaluate_lvis
from datasets.evaluation.predictions import (
    ROW,
    Predictions,
    PredictionStream,
    merge_rank_files,
    rank_file,
    read_predictions,
    write_results_json,
)
from datasets.evaluation.reference import reference_metrics
from tests.datasets import tiny
from tests.datasets.evaluation.box_cases import detection, lvis_case, perfect
from util.errors import UserError
from util.structures import Detections


def store(count=4):
    return tiny.table_of(tiny.detection_content(count, "val")[0], "val.json")


def metrics(results, annotations=None):
    return evaluate_lvis(annotations or store(), Predictions.from_results(results)).metrics


def test_perfect_predictions_score_one():
    found = metrics(perfect(store()))
    assert all(
        found[name] == pytest.approx(1.0) for name in ("AP", "AP50", "APs", "APr", "APc", "APf", "AR@300")
    )
    assert found["APl"] == found["ARm@300"] == -1, "no box of these sizes"


def test_no_predictions_at_all_score_zero(caplog):
    found = metrics([])
    assert "no predictions: every box of val.json counts as missed" in caplog.text
    assert found["AP"] == found["APr"] == found["AR@300"] == 0 and found["APl"] == -1
    assert tuple(found) == METRICS


def test_classes_neither_annotated_nor_verified_absent_are_not_evaluated():
    content = tiny.detection_content(4, "val")[0]
    for image in content["images"]:
        image["neg_category_ids"] = []
    silent = tiny.table_of(content, "val.json")
    # Green on image 1: neither annotated nor known to be absent there. The last green one is missed.
    results = [p for p in perfect(silent) if p["category_id"] != 2 or p["image_id"] != 4]
    wrong = detection(1, 2, score=0.9)
    assert metrics([*results, wrong], silent) == metrics(results, silent)
    assert metrics([*results, wrong]) != metrics(results), "as a negative it counts"
    content["images"][0]["neg_category_ids"] = [2]
    content["images"][0]["not_exhaustive_category_ids"] = [2]
    ignore_unmatched = tiny.table_of(content, "val.json")
    assert metrics([*results, wrong], ignore_unmatched) == metrics(results, silent)


def test_coco_style_files_count_everywhere_and_ignore_crowds():
    content = tiny.detection_content(2, "val")[0]
    for image in content["images"]:
        del image["neg_category_ids"]
    exhaustive = tiny.table_of(content, "val.json")
    right = perfect(exhaustive)
    assert metrics([*right, detection(1, 2, score=0.9)], exhaustive)["AP"] < metrics(right, exhaustive)["AP"]
    content["annotations"][0]["iscrowd"] = 1
    without = [p for p in right if p["image_id"] != 1]
    assert metrics(without, tiny.table_of(content, "val.json"))["AP"] == pytest.approx(1.0)


def test_only_the_top_300_of_an_image_count():
    filler = [detection(1, 2, (60.0, 40.0, 5.0, 5.0), score=0.9)] * 300
    target = detection(1, 1, score=0.1)
    annotations = store(1)
    assert metrics([*filler[:299], target], annotations)["AR@300"] > 0
    assert metrics([*filler, target], annotations)["AR@300"] == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            detection(image_id=99),
            r"1 of 3 predictions are of images that val\.json does not list \(first: image_id 99",
        ),
        (
            detection(score=float("nan")),
            r"score that is not finite \(first: nan, image_id 1, category_id",
        ),
        (detection(score=float("-inf")), r"score that is not finite \(first: -inf, image_id 1"),
        (detection() | {"score": None}, "1 of 3 predictions have a score that is not finite"),
    ],
)
def test_bad_predictions_are_one_line(entry, message):
    with pytest.raises(UserError, match=message) as caught:
        metrics([detection(), detection(2), entry])
    assert "\n" not in str(caught.value)


def test_unknown_categories_and_boxes_without_area_are_counted_and_dropped(caplog):
    right = perfect(store())
    odd = [
        detection(category_id=77),
        detection(bbox=(1.0, 1.0, 0.0, 5.0)),
        detection(bbox=(1.0, float("nan"), 2, 2)),
    ]
    odd[2]["bbox"][2] = float("nan")
    assert metrics([*right, *odd]) == metrics(right)
    assert "1 of 10 predictions are of categories" in caplog.text and "category_id 77" in caplog.text
    assert "2 of 10 predictions have a box without area, and are dropped" in caplog.text


def test_ap_of_each_category():
    results = [p for p in perfect(store()) if p["category_id"] != 5]
    result = evaluate_lvis(store(), Predictions.from_results(results))
    assert [c.ap for c in result.classes] == pytest.approx([1, 1, 0])
    assert [(c.name, c.frequency, c.boxes, c.detections) for c in result.classes] == [
        ("red_square", "f", 4, 4),
        ("green_square", "c", 2, 2),
        ("blue_square", "r", 1, 0),
    ]
    content = tiny.detection_content(3, "val")[0]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 5]
    absent = evaluate_lvis(tiny.table_of(content, "val.json"), Predictions.from_results(results[:3]))
    assert absent.classes[2].ap is None


def as_detections(results, ids):
    """Results of one image -> Detections (float32 xyxy)."""
    boxes = torch.tensor([p["bbox"] for p in results], dtype=torch.float32).reshape(-1, 4)
    return Detections(
        scores=torch.tensor([p["score"] for p in results], dtype=torch.float32),
        labels=torch.tensor([ids.index(p["category_id"]) for p in results], dtype=torch.int64),
        boxes_xyxy=torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1),
    )


def streamed_case(tmp_path):
    """(annotations, classes, image id -> Detections) of a random case with known categories only."""
    seed = next(s for s in range(500, 600) if len(lvis_case(s)[0]["images"]) == 7)
    content, results = lvis_case(seed)
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    annotations = read_annotations(path)
    classes = ClassTable.from_categories(annotations.categories)
    known = [p for p in results if p["category_id"] in classes.ids]
    found = {
        i: as_detections([p for p in known if p["image_id"] == i], classes.ids)
        for i in annotations.image_ids.tolist()
    }
    return path, annotations, classes, known, found


# lvis itself calls the deprecated Logger.warn.
@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
def test_streaming_over_ranks_gives_the_bits_of_one_rank_and_of_the_reference(tmp_path):
    path, annotations, classes, known, found = streamed_case(tmp_path)

    def run(world_size):
        out = tmp_path / f"out{world_size}"
        evaluators = [BoxEvaluator(annotations, classes, out, r, world_size) for r in range(world_size)]
        for number, (image_id, detections) in enumerate(found.items()):
            evaluators[number % world_size].update([image_id], [detections])
        # Rank 0 comes last: in one process there is no barrier.
        others = [e.finish() for e in reversed(evaluators)]
        assert others[:-1] == [None] * (world_size - 1)
        return others[-1], evaluators[0]

    single, evaluator = run(1)
    assert run(2)[0] == single and run(5)[0] == single
    expected = reference_metrics(str(path), known)
    # Coarse coordinates and scores of 1/20 keep their order in float32.
    assert single == pytest.approx(expected, abs=1e-9)
    assert sorted(p.name for p in (tmp_path / "out1" / "eval").iterdir()) == [
        "predictions.npy",
        "result.json",
    ]
    rows = [(tmp_path / f"out{n}" / "eval" / "predictions.npy").read_bytes() for n in (1, 2, 5)]
    assert rows[0] == rows[1] == rows[2]

    evaluator.write_results(tmp_path / "results.json")
    for file in (tmp_path / "results.json", tmp_path / "out1" / "eval" / "predictions.npy"):
        assert evaluate_lvis(annotations, read_predictions(file)).metrics == single, "digit for digit"


def test_an_evaluator_can_be_used_again_and_a_rank_may_have_seen_nothing(tmp_path):
    annotations = store()
    classes = ClassTable.from_categories(annotations.categories)
    evaluator = BoxEvaluator(annotations, classes, tmp_path)
    right = {
        i: as_detections([p for p in perfect(annotations) if p["image_id"] == i], classes.ids)
        for i in (1, 2, 3, 4)
    }
    evaluator.update(list(right), list(right.values()))
    first = evaluator.finish()
    assert first["AP"] == pytest.approx(1.0)
    assert evaluator.finish()["AP"] == 0, "nothing was found in the second round"
    evaluator.update(list(right), list(right.values()))
    assert evaluator.finish() == first


def test_an_image_may_come_once(tmp_path):
    annotations = store()
    evaluator = BoxEvaluator(annotations, ClassTable.from_categories(annotations.categories), tmp_path)
    none = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    evaluator.update([1], [none])
    with pytest.raises(ValueError, match="image 1 was evaluated before"):
        evaluator.update([1], [none])


def test_columns_without_category_are_dropped_and_unknown_classes_refused(tmp_path):
    annotations = store(1)
    classes = ClassTable.from_categories(
        annotations.categories, ["none", "blue_square", "red_square", "green_square"]
    )
    evaluator = BoxEvaluator(annotations, classes, tmp_path)
    box = torch.tensor([[10.0, 8, 30, 24]])
    found = Detections(torch.tensor([0.9, 0.8]), torch.tensor([0, 2]), box.repeat(2, 1))
    evaluator.update([1], [found])
    assert evaluator.finish()["APf"] == pytest.approx(1.0)
    assert len(read_predictions(tmp_path / "eval" / "predictions.npy")) == 1
    fewer = ClassTable(("red_square",), (1,), (9,), ("f",))
    with pytest.raises(UserError, match=r"'green_square' of val.json is not among the 1 classes"):
        BoxEvaluator(annotations, fewer, tmp_path)


def test_a_rank_whose_file_is_elsewhere_is_named(tmp_path):
    annotations = store()
    evaluator = BoxEvaluator(annotations, ClassTable.from_categories(annotations.categories), tmp_path, 0, 2)
    with pytest.raises(UserError, match=r"predictions\.rank1\.bin: missing; all processes must share"):
        evaluator.finish()


def test_a_truncated_rank_file_and_an_image_of_two_ranks_are_named(tmp_path):
    annotations = store()
    classes = ClassTable.from_categories(annotations.categories)
    box = Detections(torch.tensor([0.5]), torch.tensor([0]), torch.tensor([[10.0, 8, 30, 24]]))
    evaluators = [BoxEvaluator(annotations, classes, tmp_path, rank, 2) for rank in (0, 1)]
    evaluators[0].update([1, 2], [box, box])
    evaluators[1].update([3, 2], [box, box])
    evaluators[1].finish()
    with pytest.raises(UserError, match="image 2 was evaluated more than once"):
        evaluators[0].finish()
    file = rank_file(tmp_path / "eval", 0)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"predictions\.rank0\.bin: truncated \(after 67 bytes\)"):
        merge_rank_files(tmp_path / "eval", 2)


def test_images_that_were_not_evaluated_are_counted(tmp_path, caplog):
    annotations = store()
    evaluator = BoxEvaluator(annotations, ClassTable.from_categories(annotations.categories), tmp_path)
    none = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    evaluator.update([1, 2, 3], [none] * 3)
    with caplog.at_level(logging.INFO):
        evaluator.finish()
    assert "only 3 of 4 images were evaluated; the boxes of the others count as missed" in caplog.text
    assert "LVIS box AP" in caplog.text
    written = json.loads((tmp_path / "eval" / "result.json").read_text())
    assert [c["name"] for c in written["classes"]] == [c.name for c in annotations.categories]
    assert written["metrics"]["AP"] == 0 and "LVIS" in written["protocols"][0]


def test_a_file_where_the_folder_belongs_is_named(tmp_path):
    (tmp_path / "eval").write_text("x")
    with pytest.raises(UserError, match=r"eval/.*: cannot be written \(File exists\)"):
        PredictionStream(tmp_path / "eval", 0)


@pytest.mark.parametrize("detections", [1, 10_000])
def test_a_full_disk_is_one_line(tmp_path, detections):
    rank_file(tmp_path, 0).symlink_to("/dev/full")
    stream = PredictionStream(tmp_path, 0)
    boxes = np.zeros((detections, 4))
    with pytest.raises(UserError, match=r"rank0\.bin: cannot be written \(No space left on device\)"):
        stream.append(1, np.zeros(detections), boxes[:, 0], boxes)
        stream.close()


def test_memory_does_not_grow_with_images(tmp_path):
    """Three times the images, and the merge too, take the same memory on top."""
    stream = PredictionStream(tmp_path, 0)
    rng = np.random.default_rng(0)
    boxes = rng.random((300, 4), dtype=np.float32)

    def peak(ids):
        tracemalloc.start()
        for image_id in ids:
            stream.append(image_id, np.arange(300), boxes[:, 0], boxes)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    first = peak(range(50))
    assert peak(range(50, 250)) < first + 50_000
    stream.close()
    tracemalloc.start()
    path = merge_rank_files(tmp_path, 1)
    assert tracemalloc.get_traced_memory()[1] < 0.6 * path.stat().st_size + 4 * 2**20
    tracemalloc.stop()
    assert len(read_predictions(path)) == 250 * 300


def test_fixed_ap_is_refused_where_everything_is_annotated(tmp_path):
    content = tiny.detection_content(2, "val")[0]
    for image in content["images"]:
        del image["neg_category_ids"]
    annotations = tiny.table_of(content, "val.json")
    classes = ClassTable.from_categories(annotations.categories)
    with pytest.raises(UserError, match=r"val\.json: no image has `neg_category_ids`, .* leave fixed_ap out"):
        BoxEvaluator(annotations, classes, tmp_path, fixed_ap=True)
    evaluator = BoxEvaluator(annotations, classes, tmp_path)
    assert "AR@100" in evaluator.finish(), "COCO's metrics"


def test_unreadable_prediction_files(tmp_path):
    (tmp_path / "p.json").write_text('[{"image_id": 1, ')
    (tmp_path / "d.json").write_text('{"a": 1}')
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "half.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:60])
    rows = np.zeros(9, dtype=ROW)
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "early.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:-1])
    columns = {"image_id": np.arange(3), "category_id": np.arange(3), "score": np.zeros(3)}
    np.savez(tmp_path / "three.npz", **columns)
    np.savez(tmp_path / "flat.npz", **columns, bbox=np.zeros(12))
    np.savez(tmp_path / "text.npz", **columns | {"image_id": np.array(list("abc"))}, bbox=np.zeros((3, 4)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "flat.npz").read_bytes()[:100])
    for name, message in {
        "p.json": "ends early",
        "d.json": "holds an object, not a list of predictions",
        "x.npy": "not predictions, but float64",
        "half.npy": r"not a \.npy file, or truncated",
        "early.npy": r"not a \.npy file, or truncated",
        "three.npz": "array 'bbox' is missing",
        "flat.npz": r"'bbox' is float64 of shape \(12,\), not numbers of shape \(3, 4\)",
        "text.npz": r"'image_id' is <U1 of shape \(3,\), not integers",
        "cut.npz": r"not a \.npz file, or truncated",
        "none.npy": "no such file",
    }.items():
        with pytest.raises(UserError, match=rf"{name}: .*{message}") as caught:
            read_predictions(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_columns_of_an_npz_are_those_of_the_json(tmp_path):
    _, results = lvis_case(3)
    names = ("image_id", "category_id", "score", "bbox")
    np.savez(tmp_path / "p.npz", **{name: np.array([r[name] for r in results]) for name in names})
    assert read_predictions(tmp_path / "p.npz").to_results() == results


def test_large_results_are_written_and_read_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.evaluation.predictions._ENTRIES_AT_ONCE", 7)
    monkeypatch.setattr("datasets.evaluation.predictions.read_list", partial(read_list, block=100))
    _, results = lvis_case(3)
    write_results_json(tmp_path / "p.json", Predictions.from_results(results))
    assert json.loads((tmp_path / "p.json").read_text()) == results
    assert read_predictions(tmp_path / "p.json").to_results() == results
    write_results_json(
        tmp_path / "p.json", Predictions.from_results([*results[:10], results[10] | {"bbox": [1.0] * 4}])
    )
    (tmp_path / "p.json").write_text(
        (tmp_path / "p.json").read_text().replace("[1.0, 1.0, 1.0, 1.0]", "[1.0]")
    )
    with pytest.raises(UserError, match=r"p\.json: prediction number 10 "):
        read_predictions(tmp_path / "p.json")


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
def test_the_reference_leaves_numpy_and_logging_as_they_were(tmp_path):
    path = tmp_path / "val.json"
    path.write_text(json.dumps(tiny.detection_content(2, "val")[0]))
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    results = perfect(store(2))
    before = json.dumps(results)
    assert reference_metrics(str(path), results)["AP"] == pytest.approx(1.0)
    assert not hasattr(np, "float")
    assert logging.getLogger().handlers == handlers and logging.getLogger().level == level
    assert json.dumps(results) == before, "the results are not written into"
