"""Data with a training split only: `val_share`, from the error that names it to --eval and the report."""

import json
import shutil
from pathlib import Path

import pytest

from datasets.annotations.split_file import SPLIT_FILE, Split, SplitFile
from datasets.opening import DataRequest, open_detection_data
from engine.run_log import read_log
from tests.datasets import tiny
from tests.test_cli import TINY, errors, few_threads, run, train  # noqa: F401
from tools.evaluate_predictions import main as evaluate_file
from tools.report import main as report_of
from util.errors import UserError

OPTIONS = ("use_imagenet=False", "val_share=0.25", "epochs=1")


def write_data(root: Path, count: int, split: str = "train") -> Path:
    """COCO's form, without a validation split."""
    content, drawn = tiny.detection_content(count, "train")
    for image in content["images"]:
        image["file_name"] = image.pop("coco_url").split("/")[-1]
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for name, boxes in drawn.items():
        tiny.draw(root / "images" / Path(name).name, (60, 80), boxes)
    (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "fruit", 12)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in TINY.items()))
    return path


@pytest.fixture(scope="module")
def trained(config_file, data, tmp_path_factory):
    return train(config_file, data, tmp_path_factory.mktemp("runs") / "run", options=OPTIONS)


def images_of(path: Path) -> set[str]:
    """The images that an evaluation has predicted on."""
    return {r["image_id"] for r in json.loads((path / "eval" / "predictions.json").read_text())}


def test_without_the_key_the_error_names_it(config_file, data, tmp_path, capsys):
    words = ("-c", config_file, "--data_path", data, "--output_dir", tmp_path / "run")
    assert run(*words, options=("use_imagenet=False",)) == 2
    assert (
        "no annotation file for val" in (line := errors(capsys)) and "; val_share=0.2 takes a fifth" in line
    )


def test_the_split_is_written_and_evaluation_and_resuming_use_it(
    trained, data, config_file, tmp_path, caplog
):
    split = SplitFile.read(trained.parent)
    assert (split.val_share, split.seed) == (0.25, 42)
    (only,) = split.sets.values()
    assert len(only.val) == 3 and len(only.train) == 9 and not set(only.val) & set(only.train)
    metrics = read_log(trained.parent / "log.jsonl")[-1]["metrics"]
    words = ("--eval", "--resume", trained, "--save_results", "--output_dir")
    assert run(*words, tmp_path / "eval") == 0
    assert json.loads((tmp_path / "eval" / "eval" / "metrics.json").read_text()) == metrics
    assert images_of(tmp_path / "eval") == {int(Path(name).stem) for name in only.val}
    assert SplitFile.read(tmp_path / "eval") == split

    assert (
        report_of([str(trained.parent), "--output", str(tmp_path / "report.html"), "--bootstrap", "20"]) == 0
    )

    # Predictions can be evaluated without the model, on the same images and with the same groups.
    predictions = tmp_path / "eval" / "eval" / "predictions.npy"
    words = ("--annotations", data / "train.json", "--predictions", predictions)
    words += ("--split", trained.parent / SPLIT_FILE, "--json", tmp_path / "again.json")
    assert evaluate_file([str(word) for word in words]) == 0
    assert json.loads((tmp_path / "again.json").read_text()) == metrics

    # Elsewhere than beside its file a checkpoint gets the same split, with a warning.
    shutil.copy(trained, tmp_path / "moved.pth")
    caplog.clear()
    assert run("--eval", "--resume", tmp_path / "moved.pth", "--output_dir", tmp_path / "moved") == 0
    assert f"{SPLIT_FILE} is not beside" in caplog.text
    assert json.loads((tmp_path / "moved" / "eval" / "metrics.json").read_text()) == metrics


def test_images_that_are_added_move_no_validation_image(trained, config_file, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(trained.parent, folder)
    (before,) = SplitFile.read(folder).sets.values()
    more = write_data(tmp_path / "fruit", 20)
    words = ("--resume", folder / "checkpoint.pth", "--output_dir", folder, "--data_path", more)
    assert run(*words, options=("epochs=2",)) == 0
    (after,) = SplitFile.read(folder).sets.values()
    assert set(before.val) < set(after.val) and set(before.train) < set(after.train)
    assert (len(after.train), len(after.val)) == (15, 5)
    assert "8 images were added, 2 of them for validation, and 0 are gone" in caplog.text


def test_another_share_or_a_split_that_is_there_is_an_error(trained, config_file, tmp_path, capsys):
    assert run("--eval", "--resume", trained, options=("val_share=0.5",)) == 2
    assert "val_share=0.5, but the split.json of this run was made with 0.25" in errors(capsys)
    both = write_data(write_data(tmp_path / "both", 6), 5, "val")
    words = ("-c", config_file, "--data_path", both, "--output_dir", tmp_path / "run")
    assert run(*words, options=OPTIONS) == 2
    line = errors(capsys)
    assert "val_share=0.25 divides data without a validation split" in line and "val.json" in line
    # A checkpoint brings the key along to data that is split.
    assert (
        run("--eval", "--resume", trained, "--data_path", both, "--output_dir", tmp_path / "both_eval") == 0
    )
    assert json.loads((tmp_path / "both_eval" / "eval" / "result.json").read_text())["images"] == 5
    assert not (tmp_path / "both_eval" / SPLIT_FILE).exists()
    capsys.readouterr()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / SPLIT_FILE).write_text("{}")
    assert run(*words, options=OPTIONS) == 2
    assert "split.json: cannot be read" in errors(capsys)


def test_a_split_of_ones_own_is_used_as_it_is(config_file, data, tmp_path, caplog):
    names = sorted(path.name for path in (data / "images").iterdir())
    own = SplitFile(0.25, 1, {"mine": Split(tuple(names[4:]), tuple(names[:4]))})
    own.write(tmp_path / "run")
    caplog.set_level("INFO")
    words = ("-c", config_file, "--data_path", data, "--output_dir", tmp_path / "run")
    assert run(*words, options=(*OPTIONS, "dry_run=True")) == 0
    assert "4 of 12 images are for validation" in caplog.text and "were added" not in caplog.text
    assert SplitFile.read(tmp_path / "run") == own


def yolo(root: Path) -> Path:
    """`data.yaml` of a project that was exported before it was split."""
    for number in range(12):
        tiny.draw(root / "images" / "train" / f"{number}.png", (60, 80), [([number, 9, 20, 15], 1)])
        label = root / "labels" / "train" / f"{number}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{number % 2} 0.5 0.5 0.25 0.25\n")
    (root / "data.yaml").write_text("train: images/train\nnames: [red, blue]\n")
    return root


@pytest.mark.parametrize(
    "layout",
    [
        lambda root: write_data(root, 12),
        lambda root: write_data(root, 12) / "train.json",
        lambda root: write_data(root, 12, "instances_default"),
        yolo,
        lambda root: yolo(root) / "data.yaml",
    ],
    ids=["coco", "json", "cvat", "yolo", "yaml"],
)
def test_every_layout_can_be_divided(layout, tmp_path):
    data = open_detection_data(DataRequest((str(layout(tmp_path / "set")),), split=SplitFile(0.25, 42)))
    assert data.train is not None
    assert (len(data.train.table), len(data.val.table)) == (9, 3)
    train, val = (part.table.category_index for part in (data.train, data.val))
    assert {0, 1} <= set(train.tolist()) and {0, 1} <= set(val.tolist())
    assert all(data.val.images.read(data.val.table.file_names[i]).shape == (60, 80, 3) for i in range(3))


def test_of_several_sets_those_without_a_validation_split_are_divided(tmp_path, caplog):
    one = write_data(tmp_path / "one", 12)
    two = write_data(write_data(tmp_path / "two", 8), 5, "val")
    paths = (str(one), str(two))
    data = open_detection_data(DataRequest(paths, split=SplitFile(0.25, 42)))
    assert data.train is not None and list(data.divided) == ["one"]
    assert [len(part.table) for part in data.train.parts] == [9, 8]
    assert [len(part.table) for part in data.val.parts] == [3, 5]
    # Without the key the others are evaluated, and the warning names it.
    data = open_detection_data(DataRequest(paths))
    assert len(data.val.table) == 5 and "val_share=0.2" in caplog.text
    with pytest.raises(UserError, match=r"none of one, three has a validation split; val_share=0\.2"):
        open_detection_data(DataRequest((str(one), str(write_data(tmp_path / "three", 4)))))
