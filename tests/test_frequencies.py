"""APr, APc and APf of data whose files say nothing about frequencies: in training, and with --eval."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.run_log import read_log
from tests.checkpoints import read_checkpoint
from tests.datasets import tiny
from tests.test_cli import TINY, few_threads, run, train  # noqa: F401
from util.checkpoint import save_checkpoint

GROUPS = ("APr", "APc", "APf")


@pytest.fixture
def data(tmp_path):
    """COCO's form: red is in 12 training images, green in 6, blue in 1; nothing says so."""
    for split, count in (("train", 12), ("val", 4)):
        content, drawn = tiny.detection_content(count, split)
        for image in content["images"]:
            image["file_name"] = "/".join(image.pop("coco_url").split("/")[-2:])
            del image["neg_category_ids"], image["not_exhaustive_category_ids"]
        for category in content["categories"]:
            del category["frequency"], category["image_count"]
        for name, boxes in drawn.items():
            tiny.draw(tmp_path / "data" / name, (60, 80), boxes)
        path = tmp_path / "data" / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "data"


def test_they_come_from_training_and_travel_in_the_checkpoint(data, tmp_path, capsys):
    config = tmp_path / "tiny.py"
    config.write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    options = ("use_imagenet=False", "epochs=1")
    checkpoint = train(config, data, tmp_path / "run", "--dataset_file", "coco", options=options)
    metrics = read_log(tmp_path / "run" / "log.jsonl")[-1]["metrics"]
    assert set(GROUPS) <= set(metrics) and metrics["APf"] == -1
    result = json.loads((tmp_path / "run" / "eval" / "result.json").read_text())
    groups = {c["name"]: (c["frequency"], c["image_count"]) for c in result["classes"]}
    assert groups == {"red_square": ("c", 12), "green_square": ("r", 6), "blue_square": ("r", 1)}
    record = json.loads((tmp_path / "run" / "eval" / "dataset.json").read_text())
    assert [c["frequency"] for c in record["classes"]] == ["c", "r", "r"]
    rare = [c["ap"] for c in result["classes"] if c["frequency"] == "r"]
    assert metrics["APr"] == pytest.approx(np.mean(rare))
    content = read_checkpoint(checkpoint)
    assert content.frequencies == ["c", "r", "r"]

    # The training data may be gone.
    (data / "annotations" / "instances_train2017.json").unlink()
    assert run("--eval", "--resume", checkpoint, "--output_dir", tmp_path / "eval") == 0
    again = json.loads((tmp_path / "eval" / "eval" / "metrics.json").read_text())
    assert again == metrics
    record = json.loads((tmp_path / "eval" / "eval" / "dataset.json").read_text())
    assert [(c["frequency"], c["train_images"]) for c in record["classes"]] == [("c", 12), ("r", 6), ("r", 1)]

    # Checkpoints of earlier revisions: counts without groups, or neither.
    save_checkpoint(tmp_path / "counted.pth", replace(content, frequencies=[]))
    assert run("--eval", "--resume", tmp_path / "counted.pth", "--output_dir", tmp_path / "counted") == 0
    assert json.loads((tmp_path / "counted" / "eval" / "metrics.json").read_text()) == metrics
    save_checkpoint(tmp_path / "old.pth", replace(content, frequencies=[], image_counts=[]))
    assert run("--eval", "--resume", tmp_path / "old.pth", "--output_dir", tmp_path / "old") == 0
    old = json.loads((tmp_path / "old" / "eval" / "metrics.json").read_text())
    assert old == {name: value for name, value in metrics.items() if name not in GROUPS}
