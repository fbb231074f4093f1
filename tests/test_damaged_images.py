"""Damaged images from the command line to the log and the metrics."""

import json
from pathlib import Path

from datasets.evaluation.dataset_record import DatasetRecord
from engine.run_log import read_log
from tests.datasets.tiny import write_all
from tests.test_cli import config_file as config_file  # a fixture
from tests.test_cli import errors, run, table, train


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_a_damaged_validation_image_is_as_if_it_were_not_listed(config_file, tmp_path, capsys):
    folder = write_all(tmp_path / "data")
    trained = train(config_file, folder, tmp_path / "run")
    path = folder / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    content = json.loads(path.read_text())
    content["images"] = [i for i in content["images"] if i["id"] != 102]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 102]
    without = {**content, "info": {}}
    cut(next((folder / "lvis_v1").glob("val2017/*102.png")))
    arguments = ("--eval", "--resume", trained, "--data_path", folder)
    out = tmp_path / "out"
    capsys.readouterr()
    assert run(*arguments, "--output_dir", out) == 0
    printed = capsys.readouterr().out
    assert "the metrics are over 4 of the 5 images of lvis_v1_val.json: 1 could not be read" in printed
    result = json.loads((out / "eval" / "result.json").read_text())
    assert result["images"] == 4 and result["damaged_image_ids"] == [102]
    assert DatasetRecord.read(out / "eval").damaged_image_ids == (102,)
    path.write_text(json.dumps(without))
    assert run(*arguments) == 0
    assert table(capsys.readouterr().out) == table(printed)
    assert run(*arguments, options=("max_damaged_share=0",)) == 0
    for image in (folder / "lvis_v1" / "val2017").iterdir():
        image.write_bytes(b"")
    assert run(*arguments) == 2
    assert "4 of the 4 images read so far are damaged" in errors(capsys)


def test_damaged_images_are_counted_and_named_in_the_log(config_file, tmp_path, capsys):
    folder = write_all(tmp_path / "data")
    names = ["train2017/000000000003.png", "val2017/000000000101.png"]
    for name in names:
        cut(folder / "lvis_v1" / name)
    train(config_file, folder, tmp_path / "run", options=("epochs=2", "eval_interval=2"))
    epochs = [entry for entry in read_log(tmp_path / "run" / "log.jsonl") if entry["kind"] == "epoch"]
    assert [entry["damaged"]["train"] for entry in epochs] == [{"count": 1, "names": names[:1]}] * 2
    assert [entry["damaged"]["val"]["names"] for entry in epochs] == [[], names[1:]]
    assert "1 damaged images so far, train: train2017/000000000003.png" in capsys.readouterr().out


def test_too_many_damaged_training_images_end_the_run(config_file, tmp_path, capsys):
    folder = write_all(tmp_path / "data")
    for image in sorted((folder / "lvis_v1" / "train2017").iterdir())[:6]:
        cut(image)
    arguments = ("-c", config_file, "--data_path", folder, "--output_dir", tmp_path / "run")
    assert run(*arguments) == 2
    assert "images read so far are damaged, which is more than max_damaged_share=0.1" in errors(capsys)
