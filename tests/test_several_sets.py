"""Several data sets as one, from the command line to a checkpoint that evaluates each of them again."""

import json

import pytest

from engine.run_log import read_log
from tests.checkpoints import read_checkpoint
from tests.datasets.sets import coco, write_coco, write_yolo
from tests.test_cli import config_file, run
from tools import report

__all__ = ["config_file"]  # a fixture

OPTIONS = ("use_imagenet=False", "epochs=1", "batch_size=1")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    street = [{"id": 4, "name": "hound", "synonyms": ["dog"]}, {"id": 7, "name": "car"}]
    for split in ("train", "val"):
        write_yolo(root / "pets", split, ["cat", "dog"], [["cat"], ["dog", "cat"]])
        write_coco(root / "street", split, coco(street, [["car", "hound"], ["hound"], ["car"]]))
    return root


@pytest.fixture(scope="module")
def trained(sets, config_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ("-c", config_file, "--output_dir", folder, "--data_path", sets / "pets", sets / "street")
    assert run(*words, options=OPTIONS) == 0
    return folder / "checkpoint.pth"


def write_report(evaluated, path):
    assert not report.main([str(evaluated), "--output", str(path), "--bootstrap", "20"])
    return path.read_text()


def numbers(text):
    return {line.split()[0]: line.split()[1] for line in text.splitlines() if "AP" in line.split(" ")[0]}


def test_a_run_of_two_sets(trained, sets):
    folder = trained.parent
    checkpoint = read_checkpoint(trained)
    assert checkpoint.class_names == ["cat", "dog", "car"]
    assert checkpoint.run["data_path"] == [str(sets / "pets"), str(sets / "street")]
    assert checkpoint.run["sets"] == {
        "pets": {"cat": "cat", "dog": "dog"},
        "street": {"hound": "dog", "car": "car"},
    }
    assert "hound (id 4, by synonym)" in (folder / "classes.txt").read_text()
    assert "3 classes of 2 data sets, 1 of them in more than one" in (folder / "log.txt").read_text()
    metrics = next(line["metrics"] for line in read_log(folder / "log.jsonl") if line["kind"] == "epoch")
    assert {"AP", "AP50", "pets/AP", "street/AP50"} <= set(metrics)
    assert checkpoint.best_ap == metrics["AP"]
    assert json.loads((folder / "eval" / "result.json").read_text())["metrics"] == metrics


def test_a_checkpoint_evaluates_its_sets_again(trained, tmp_path, capsys):
    assert run("--eval", "--resume", trained, "--output_dir", tmp_path, "--save_results") == 0
    printed = numbers(capsys.readouterr().out)
    assert {"AP", "pets/AP", "street/AP"} <= set(printed)
    before, after = (json.loads((f / "eval" / "result.json").read_text()) for f in (trained.parent, tmp_path))
    assert after["metrics"] == before["metrics"]
    own = json.loads((tmp_path / "eval" / "predictions_street.json").read_text())
    assert {row["category_id"] for row in own} <= {4, 7} and {row["image_id"] for row in own} <= {1, 2, 3}


def test_one_of_its_sets_alone_has_the_metrics_of_its_part(trained, sets, tmp_path, capsys):
    words = ("--eval", "--resume", trained, "--data_path", sets / "pets", "--output_dir", tmp_path)
    assert run(*words) == 0
    result = json.loads((trained.parent / "eval" / "result.json").read_text())["metrics"]
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert found == {name: result[f"pets/{name}"] for name in found}


def test_training_goes_on(trained, capsys):
    assert run("--resume", trained, "--output_dir", trained.parent, options=("epochs=2",)) == 0
    changes = [
        line for line in (trained.parent / "log.txt").read_text().splitlines() if "changed since" in line
    ]
    assert len(changes) == 1 and changes[0].endswith("epochs 1 -> 2")
    assert read_checkpoint(trained).epoch == 2 and "sets" in read_checkpoint(trained).run


def test_a_list_of_classes_travels_in_the_checkpoint(sets, config_file, tmp_path):
    """Also through the config that a run leaves behind."""
    words = ("-c", config_file, "--output_dir", tmp_path / "run", "--data_path", sets / "street")
    edits = ("rename={'hound': 'dog'}", "classes=[dog]")
    assert run(*words, "--debug", options=(*OPTIONS, *edits)) == 0
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoint.pth")
    assert checkpoint.class_names == ["dog"] and checkpoint.config["rename"] == {"hound": "dog"}
    path = tmp_path / "run" / "checkpoint.pth"
    assert run("--eval", "--resume", path, "--output_dir", tmp_path / "again") == 0
    results = [json.loads((tmp_path / f / "eval" / "result.json").read_text()) for f in ("run", "again")]
    assert results[0] == results[1] and [c["name"] for c in results[0]["classes"]] == ["dog"]
    write_report(tmp_path / "again", tmp_path / "report.html")


def test_a_report_reads_the_sets_as_the_evaluation_did(trained, tmp_path, caplog):
    page = write_report(trained.parent, tmp_path / "report.html")
    assert "pets/images/val/1.png" in page and "street/1.png" in page
    assert "cannot be read" not in caplog.text


def test_what_training_says_of_sets_does_not_hinder_the_evaluation_of_one(sets, config_file, tmp_path):
    words = (
        "-c",
        config_file,
        "--output_dir",
        tmp_path / "run",
        "--data_path",
        sets / "pets",
        sets / "street",
    )
    said = (
        "set_weights=[1,2]",
        "labelled_classes={'street': ['hound'], 'pets': ['dog']}",
        "merge={'d': ['dog']}",
    )
    assert run(*words, "--debug", options=(*OPTIONS, *said)) == 0
    path = tmp_path / "run" / "checkpoint.pth"
    assert run("--eval", "--resume", path, "--data_path", sets / "pets", "--output_dir", tmp_path / "e") == 0
    write_report(tmp_path / "run", tmp_path / "report.html")
    write_report(tmp_path / "e", tmp_path / "report.html")
