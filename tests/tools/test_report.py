import csv
import json
import math
import re

import pytest

from tests.datasets import tiny
from tests.tools.tail_report import evaluations
from tests.tools.tail_report.evaluations import write_data, write_evaluation
from tools.report import main
from util.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return write_evaluation(tmp_path_factory.mktemp("runs") / "one", data)


def report(tmp_path, *words):
    """The page and the numbers."""
    page, numbers = tmp_path / "report.html", tmp_path / "report.json"
    main([*map(str, words), "--output", str(page), "--json", str(numbers), "--bootstrap", "40"])
    return page.read_text(encoding="utf-8"), json.loads(numbers.read_text())


def result_of(run):
    return json.loads((run / "eval" / "result.json").read_text())


def test_numbers_are_the_evaluators_and_the_split_sums(run, tmp_path):
    _, found = report(tmp_path, run)
    result = result_of(run)
    assert found["AP"] == result["metrics"]["AP"] and found["metrics"] == result["metrics"]
    assert 0 < found["AP"] < 1
    for group, metric in zip(found["groups"], ("AP", "APr", "APc", "APf"), strict=True):
        assert group["ap"] == pytest.approx(result["metrics"][metric], abs=1e-12)
        assert sum(group["share"].values()) == pytest.approx(1 - group["ap"], abs=1e-9)
        assert sum(group["share50"].values()) == pytest.approx(1 - group["ap50"], abs=1e-9)
    assert [(c["name"], c["ap"], c["boxes"]) for c in found["classes"]] == [
        (c["name"], c["ap"], c["boxes"]) for c in result["classes"]
    ]
    for entry in found["classes"]:
        # At IoU 0.5 the curve, 0 beyond its recall, is the AP.
        assert sum(entry["precision50"]) / 101 == pytest.approx(entry["ap50"], abs=1e-3)
        taken = entry["right"] + entry["nothing"] + sum(o["boxes"] for o in entry["confused_with"])
        assert taken == entry["boxes"]


def test_counts_come_from_the_data_where_the_evaluation_did_not_know_them(run, tmp_path):
    _, found = report(tmp_path, run)
    counts = [(c["name"], c["group"], c["train_images"], c["image_level_images"]) for c in found["classes"]]
    assert counts == [("red_square", "f", 9, 3), ("green_square", "c", 5, 2), ("blue_square", "r", 1, 2)]
    assert found["classes"][2]["interval"] is None, "one image does not say how images vary"
    low, high = found["classes"][0]["interval"]
    assert low < found["classes"][0]["ap"] < high


def test_the_page_stands_alone(run, tmp_path):
    page, found = report(tmp_path, run)
    assert "{{" not in page
    links = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    embedded = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page).group(1)
    )
    assert embedded["AP"] == found["AP"]
    assert all(i["pixels"].startswith("data:image/jpeg") for i in found["worst_images"]["images"])


def test_worst_images_tell_found_from_missed(run, tmp_path):
    worst = report(tmp_path, run)[1]["worst_images"]
    assert [i["f1"] for i in worst["images"]] == sorted(i["f1"] for i in worst["images"])
    for image in worst["images"]:
        assert image["missed"] == sum(not b["found"] for b in image["boxes"])
        wrong = [d for d in image["detections"] if d["kind"] not in ("right", "unjudged", "ignored")]
        assert image["false"] == len(wrong) and image["missed"] + image["false"] > 0
        assert all(d["score"] >= worst["score"] - 1e-4 for d in image["detections"])


def test_a_class_name_is_text_and_no_markup(tmp_path):
    data = write_data(tmp_path / "data")
    path = data / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    path.write_text(path.read_text().replace("red_square", "</script><b>red"))
    page, _ = report(tmp_path, write_evaluation(tmp_path / "run", data))
    assert "</script><b>" not in page and page.count("</script>") == 2


def test_a_run_against_itself_is_noise_and_a_worse_one_is_worse(data, run, tmp_path):
    _, same = report(tmp_path, run, run)
    verdicts = [(g["ap"], g["verdict"]) for g in same["difference"]["groups"]]
    assert verdicts == [(0, "noise"), (0, "too few images"), (0, "too few images"), (0, "noise")]
    other = write_evaluation(tmp_path / "other", data, wrong=1.0)
    _, found = report(tmp_path, run, other)
    assert found["compared"]["metrics"] == result_of(other)["metrics"]
    overall = found["difference"]["groups"][0]
    assert overall["ap"] == pytest.approx(found["compared"]["AP"] - found["AP"]) and overall["ap"] < 0
    assert overall["interval"][1] < 0 and overall["verdict"] == "worse"
    verdicts = {c["name"]: c["verdict"] for c in found["difference"]["classes"]}
    assert verdicts == {
        "red_square": "worse",
        "green_square": "too few images",
        "blue_square": "too few images",
    }


def test_csv_has_a_row_for_each_class(run, tmp_path):
    main(
        [
            str(run),
            "--output",
            str(tmp_path / "a.html"),
            "--csv",
            str(tmp_path / "a.csv"),
            "--bootstrap",
            "20",
        ]
    )
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["name"] for r in rows] == ["red_square", "green_square", "blue_square"]
    lacking = sum(float(v) for k, v in rows[0].items() if k.startswith("lacks_"))
    assert math.isclose(lacking, 1 - float(rows[0]["ap"]), abs_tol=1e-9)


def test_coco_annotations_have_groups_by_training_images(tmp_path):
    content = tiny.detection_content(6, "val")[0]
    for image in content["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for category in content["categories"]:
        del category["frequency"], category["image_count"]
    for split in ("train", "val"):
        path = tmp_path / "data" / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    annotations = tiny.table_of(content, "val.json")
    rows = evaluations.detections(annotations, seed=0, wrong=0.3)
    run = evaluations.write_files(tmp_path / "run", annotations, rows)
    with pytest.raises(UserError, match=r"dataset.json is missing .* add --annotations FILE"):
        report(tmp_path, run)
    _, unknown = report(tmp_path, run, "--annotations", path)
    assert [g["key"] for g in unknown["groups"]] == ["all"] and "none" in unknown["annotations"]["groups"]
    assert unknown["classes"][0]["train_images"] is None
    evaluations.write_record(run, annotations, path, tmp_path / "data", "coco")
    _, found = report(tmp_path, run)
    assert [g["key"] for g in found["groups"]] == ["all", "r"]
    assert "cuts of training images" in found["annotations"]["groups"]
    assert found["AP"] == result_of(run)["metrics"]["AP"]


def test_what_cannot_be_reported_is_one_line(data, run, tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        report(tmp_path, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no eval/predictions\.npy; name a run folder"):
        report(tmp_path, data)
    other_data = write_data(tmp_path / "other_data", count=5)
    other = write_evaluation(tmp_path / "other", other_data)
    with pytest.raises(UserError, match="were evaluated on different annotations"):
        report(tmp_path, run, other)
    changed = other_data / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    changed.write_text(json.dumps(tiny.detection_content(6, "val", first_id=100)[0]))
    with pytest.raises(UserError, match=r"not the annotations that .* was evaluated on, or changed since"):
        report(tmp_path, other)
    (other / "eval" / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json: cannot be read"):
        report(tmp_path, other)


def test_data_that_has_moved_is_named_and_its_images_may_be_missing(tmp_path):
    data = write_data(tmp_path / "data")
    run = write_evaluation(tmp_path / "run", data)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"no such folder.*if the data has moved: --annotations FILE"):
        report(tmp_path, run)
    moved = tmp_path / "elsewhere" / "lvis_v1"
    annotations = moved / "annotations" / "lvis_v1_val.json"
    _, without = report(tmp_path, run, "--annotations", annotations)
    assert "pixels" not in without["worst_images"]["images"][0]
    _, found = report(tmp_path, run, "--annotations", annotations, "--image_folder", moved)
    assert "pixels" in found["worst_images"]["images"][0]
