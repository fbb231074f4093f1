"""tools/evaluate_predictions.py as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.evaluation.lvis import METRICS
from tests.datasets.evaluation.box_cases import coco_case, lvis_case
from tools import evaluate_predictions
from util.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate_predictions.py"


def evaluate(*arguments):
    """As `run`, in this process."""
    return evaluate_predictions.main(list(map(str, arguments)))


def run(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def files(tmp_path):
    content, results = lvis_case(3)
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "p.json").write_text(json.dumps(results))
    return "--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json"


def test_prints_and_writes_the_13_metrics(files, tmp_path):
    done = run(*files, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert tuple(written) == METRICS
    printed = [line.split() for line in done.stdout.splitlines()]
    assert {name: float(value) for name, value in printed[-13:]} == written


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
def test_the_reference_agrees(files, tmp_path):
    for option, name in ((), "ours"), (("--reference",), "theirs"):
        assert evaluate(*files, *option, "--json", tmp_path / name) == 0
    ours, theirs = (json.loads((tmp_path / n).read_text()) for n in ("ours", "theirs"))
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_reference_says_that_it_takes_annotation_id_0_for_no_match(tmp_path, caplog):
    content, results = coco_case(4)
    content["annotations"][0]["id"] = 0
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "p.json").write_text(json.dumps(results))
    files = "--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json"
    evaluate(*files, "--reference")
    assert "pycocotools counts what matches it as a false positive" in caplog.text
    del content["annotations"][0]["iscrowd"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a\.json: pycocotools cannot evaluate it \(KeyError: 'iscrowd'\)"):
        evaluate(*files, "--reference")


def test_exhaustive_annotations_get_coco_metrics_and_every_class(tmp_path):
    content, results = coco_case(4)
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "p.json").write_text(json.dumps(results))
    files = "--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json"
    assert evaluate(*files, "--json", tmp_path / "ours", "--result", tmp_path / "result.json") == 0
    assert evaluate(*files, "--reference", "--json", tmp_path / "theirs") == 0
    ours, theirs = (json.loads((tmp_path / n).read_text()) for n in ("ours", "theirs"))
    assert {k: ours[k] for k in theirs} == pytest.approx(theirs, abs=1e-12)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["metrics"] == ours
    assert [c["name"] for c in written["classes"]] == [c["name"] for c in content["categories"]]
    assert "COCO box AP" in written["protocols"][0]
    with pytest.raises(UserError, match="leave fixed_ap out"):
        evaluate(*files, "--fixed_ap")
    assert evaluate(*files, "--fixed_ap", "--protocol", "lvis", "--json", tmp_path / "fixed") == 0
    assert "FixedAPr" in json.loads((tmp_path / "fixed").read_text())


def test_training_annotations_group_the_classes(tmp_path):
    content, results = coco_case(4)
    (tmp_path / "p.json").write_text(json.dumps(results))
    (tmp_path / "train.json").write_text(json.dumps(content))
    for category in content["categories"]:
        category.pop("frequency", None)
    (tmp_path / "a.json").write_text(json.dumps(content))
    files = "--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json"
    for options, name in ((), "without"), (("--train_annotations", tmp_path / "train.json"), "with"):
        assert evaluate(*files, *options, "--json", tmp_path / name) == 0
    found, without = (json.loads((tmp_path / name).read_text()) for name in ("with", "without"))
    assert set(found) - set(without) == {"APr", "APc", "APf"}
    assert evaluate("--annotations", tmp_path / "train.json", *files[2:], "--json", tmp_path / "own") == 0
    assert json.loads((tmp_path / "own").read_text()) == found
    (tmp_path / "split.json").write_text('{"val_share": 0.2, "seed": 1, "sets": {}}')
    with pytest.raises(UserError, match=r"a\.json: not the data that split\.json divides"):
        evaluate(*files, "--split", tmp_path / "split.json")
    with pytest.raises(UserError, match="leave --split or --reference out"):
        evaluate(*files, "--split", tmp_path / "split.json", "--reference")


def test_a_mistake_is_one_line_and_status_2(files, tmp_path):
    files[3].write_text('[{"image_id": 1')
    done = run(*files)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "p.json: ends early" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture
def shifted(tmp_path):
    """Perfect predictions of a COCO file, changed by `change`; returns the flags."""
    content, _ = coco_case(4)
    perfect = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for a in content["annotations"]
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))

    def write(change):
        (tmp_path / "p.json").write_text(json.dumps([entry | change(entry) for entry in perfect]))
        return "--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json"

    return write


def test_where_next_to_nothing_matches_it_says_what_would(shifted, capsys):
    right = shifted(lambda p: {})
    assert evaluate(*right) == 0
    assert "hint" not in capsys.readouterr().out
    x, y = 640, 480
    assert (
        evaluate(*shifted(lambda p: {"bbox": [v / s for v, s in zip(p["bbox"], (x, y, x, y), strict=True)]}))
        == 0
    )
    printed = capsys.readouterr().out
    assert "AP50 is near 0; a hint: the boxes are fractions of the image, 0..1" in printed
    assert "AP       0.0" in printed


def test_images_that_are_not_listed_are_an_error_with_a_hint(shifted):
    with pytest.raises(UserError, match=r"a.json does not list .*; the image ids are one too small: add 1"):
        evaluate(*shifted(lambda p: {"image_id": p["image_id"] - 1}))
