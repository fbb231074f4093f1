"""A united evaluation gives each set the numbers that it has alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.annotations.categories import ClassTable, renamed
from datasets.annotations.class_union import unite_classes
from datasets.annotations.union import NamedTable, unite
from datasets.evaluation.evaluator import BoxEvaluator, evaluate_boxes
from datasets.evaluation.predictions import Predictions, read_predictions
from tests.datasets import tiny
from tests.datasets.evaluation.box_cases import coco_case, lvis_case
from util.structures import Detections


def with_names(table, words):
    return replace(table, categories=tuple(renamed(c, words.get(c.name, c.name)) for c in table.categories))


def detections_of(results, table, columns):
    """For each image of a table, results of a random case as a model with these columns gives them."""
    column_of = dict(zip(table.category_ids.tolist(), columns.tolist(), strict=True))
    found = []
    for image_id in table.image_ids.tolist():
        own = [r for r in results if r["image_id"] == image_id]
        boxes = torch.tensor([r["bbox"] for r in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        # What is of no class of the set may be of another one's.
        labels = torch.tensor([column_of.get(r["category_id"], 0) for r in own], dtype=torch.int64)
        found.append(Detections(torch.tensor([r["score"] for r in own]), labels, boxes))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_each_set_has_the_metrics_that_it_has_alone(tmp_path, seed):
    cases = {"city": coco_case(seed), "wild": lvis_case(seed + 50)}
    tables = {name: tiny.table_of(content, f"{name}.json") for name, (content, _) in cases.items()}
    first = tables["wild"].categories[0].name
    tables["wild"] = with_names(tables["wild"], {first: "beast"})
    tables["wild"] = replace(tables["wild"], federated=True)
    classes = unite_classes({name: table.categories for name, table in tables.items()})
    union = unite([NamedTable(name, table) for name, table in tables.items()], classes)
    columns = ClassTable.from_categories(union.table.categories)
    together = BoxEvaluator(union.table, columns, tmp_path / "union", parts=union.parts)
    expected = {}
    for part in union.parts:
        index = classes.index(part.name, part.table.categories)
        found = detections_of(cases[part.name][1], part.table, index)
        together.update(union.table.image_ids[part.images].tolist(), found)
        own_names = list(columns.names)
        for place, category in zip(index, part.table.categories, strict=True):
            own_names[place] = category.name
        alone = BoxEvaluator(
            part.table, ClassTable.from_categories(part.table.categories, own_names), tmp_path / part.name
        )
        alone.update(part.table.image_ids.tolist(), found)
        metrics = alone.finish()
        expected |= {f"{part.name}/{name}": value for name, value in metrics.items()}
        alone.write_results(tmp_path / part.name / "own.json")
    metrics = together.finish()
    assert {name: value for name, value in metrics.items() if "/" in name} == expected
    assert {"AP", "city/AP", "wild/AP", "city/AR@100", "wild/AR@300"} <= set(metrics)
    together.write_results(tmp_path / "predictions.json")
    for name in tables:
        own = json.loads((tmp_path / f"predictions_{name}.json").read_text())
        assert own == json.loads((tmp_path / name / "own.json").read_text())
        written = json.loads((tmp_path / "union" / "eval" / f"result_{name}.json").read_text())
        assert written["metrics"]["AP"] == metrics[f"{name}/AP"]


def test_a_union_of_exhaustive_sets_judges_each_class_where_it_was_looked_for(tmp_path):
    """A detection of a class that a set does not know is no false positive on its images."""
    cases = {name: coco_case(seed) for name, seed in (("a", 3), ("b", 4))}
    tables = {}
    for name, (content, _) in cases.items():
        for category in content["categories"]:
            category["name"] = f"{name}_{category['name']}"
        tables[name] = tiny.table_of(content, name)
    classes = unite_classes({name: table.categories for name, table in tables.items()})
    union = unite([NamedTable(name, table) for name, table in tables.items()], classes)
    columns = ClassTable.from_categories(union.table.categories)
    metrics = []
    for stray in (False, True):
        evaluator = BoxEvaluator(union.table, columns, tmp_path / str(stray), parts=union.parts)
        for part, other in zip(union.parts, reversed(union.parts), strict=True):
            own = classes.index(part.name, part.table.categories)
            found = detections_of(cases[part.name][1], part.table, own)
            # As many as matter: LVIS's rules cut after 300 of an image.
            found = [Detections(d.scores[:50], d.labels[:50], d.boxes_xyxy[:50]) for d in found]
            if stray:
                found = [with_one_more(d, int(other.class_index[0])) for d in found]
            evaluator.update(union.table.image_ids[part.images].tolist(), found)
        metrics.append(evaluator.finish())
    assert metrics[0] == metrics[1]
    assert union.table.federated and metrics[0]["AP"] > 0


def with_one_more(found, label):
    return Detections(
        torch.cat((found.scores, torch.ones(1))),
        torch.cat((found.labels, torch.tensor([label]))),
        torch.cat((found.boxes_xyxy, torch.tensor([[0.0, 0.0, 50.0, 50.0]]))),
    )


def test_damaged_images_are_left_out_of_their_set(tmp_path):
    tables = {name: tiny.table_of(tiny.detection_content(4, "val")[0], name) for name in ("a", "b")}
    classes = unite_classes({name: table.categories for name, table in tables.items()})
    union = unite([NamedTable(name, table) for name, table in tables.items()], classes)
    columns = ClassTable.from_categories(union.table.categories)
    evaluator = BoxEvaluator(union.table, columns, tmp_path, parts=union.parts, damaged_ids=lambda: [6])
    none = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    evaluator.update([1, 2, 3, 4, 5, 7, 8], [none] * 7)
    evaluator.finish()
    counts = [json.loads((tmp_path / "eval" / f"result_{n}.json").read_text())["images"] for n in ("a", "b")]
    assert counts == [4, 3]


def test_own_predictions_are_those_of_the_file(tmp_path):
    """The ids of `predictions_NAME.json` are the file's: it evaluates to the same numbers by itself."""
    content, _ = tiny.detection_content(5, "val", first_id=100)
    tables = {"a": tiny.table_of(tiny.detection_content(3, "val")[0], "a"), "b": tiny.table_of(content, "b")}
    classes = unite_classes({name: table.categories for name, table in tables.items()})
    union = unite([NamedTable(name, table) for name, table in tables.items()], classes)
    evaluator = BoxEvaluator(
        union.table, ClassTable.from_categories(union.table.categories), tmp_path, parts=union.parts
    )
    rng = np.random.default_rng(0)
    for image in range(8):
        rows = union.table.rows(image)
        boxes = torch.tensor(union.table.boxes_xywh[rows], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor(union.table.category_index[rows], dtype=torch.int64)
        evaluator.update([image + 1], [Detections(torch.tensor(rng.random(len(boxes))), labels, boxes)])
    metrics = evaluator.finish()
    evaluator.write_results(tmp_path / "p.json")
    own = read_predictions(tmp_path / "p_b.json")
    assert set(own.image_ids.tolist()) == {100, 101, 102, 103, 104} and set(own.category_ids.tolist()) == {
        1,
        2,
        5,
    }
    assert evaluate_boxes(tables["b"], own).metrics["AP"] == metrics["b/AP"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_a_judged_list_is_evaluated_as_negatives_of_all_of_its_classes(seed):
    """Also where it names a class that is not exhaustively annotated."""
    content, results = lvis_case(seed)
    rng = np.random.default_rng(seed)
    ids = [c["id"] for c in content["categories"]]
    kinds = [[i for i in ids if rng.random() < 0.6] for _ in range(3)]
    for image in content["images"]:
        if rng.random() < 0.7:
            image["labelled_category_ids"] = kinds[rng.integers(3)]
    judged = tiny.table_of(content, "judged")
    for image in content["images"]:
        image["neg_category_ids"] += image.pop("labelled_category_ids", [])
    listed = tiny.table_of(content, "listed")
    predictions = Predictions.from_results(results)
    assert evaluate_boxes(judged, predictions).metrics == evaluate_boxes(listed, predictions).metrics
