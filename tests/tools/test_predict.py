"""From a checkpoint and any input to drawings and files."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from datasets.evaluation.predictions import read_predictions
from tests.inference.test_video import make_video
from tests.inference.tiny import NAMES, make_checkpoint
from tests.source_files import ROOT
from tools import predict
from tools.predict import main
from util.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(make_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.pth"))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (height, width) in (("a.png", (60, 90)), ("more/b.jpg", (120, 80))):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / name)
    return folder


def entries(folder):
    return json.loads((folder / "predictions.json").read_text())


def test_a_folder_becomes_drawings_and_json(checkpoint, images, tmp_path):
    output = tmp_path / "out"
    main([checkpoint, str(images), "--output", str(output), "--score", "0", "--device", "cpu"])
    found = entries(output)
    assert [(e["width"], e["height"]) for e in found] == [(90, 60), (80, 120)]
    for entry in found:
        with Image.open(entry["drawn"]) as drawn:
            # Small images are enlarged by a whole number, never turned or cut.
            assert drawn.width % entry["width"] == 0
            assert drawn.width * entry["height"] == drawn.height * entry["width"]
        scores = [d["score"] for d in entry["detections"]]
        assert len(scores) == 20 and scores == sorted(scores, reverse=True)
        assert {d["name"] for d in entry["detections"]} <= set(NAMES)
    assert (output / "more/b.jpg.drawn.jpg").is_file()


def test_a_second_run_does_not_predict_its_own_drawings(checkpoint, images, monkeypatch):
    monkeypatch.chdir(images)
    for _ in range(2):
        main([checkpoint, ".", "--device", "cpu"])
        assert [e["file"] for e in entries(images / "predictions")] == ["./a.png", "./more/b.jpg"]


def test_batches_limits_and_formats(checkpoint, images, tmp_path):
    options = ["--device", "cpu", "--score", "0", "--max_detections", "7"]
    # Of one size: padding is not in the comparison.
    for name in "cd":
        Image.open(images / "a.png").rotate(180).save(images / f"{name}.png")
    (images / "more/b.jpg").unlink()
    for size in "13":
        output = ["--output", str(tmp_path / size), "--batch_size", size, "--format", "json,coco"]
        main([checkpoint, str(images), *options, *output])
    one, three = (entries(tmp_path / size) for size in "13")
    assert [len(e["detections"]) for e in three] == [7] * 3 and three[0]["drawn"] is None
    for a, b in zip(one, three, strict=True):
        assert a["file"] == b["file"]
        scores = [[d["score"] for d in e["detections"]] for e in (a, b)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert len(read_predictions(tmp_path / "3/coco_results.json")) == 21


def test_coco_results_use_the_ids_of_annotations(checkpoint, images, tmp_path, capsys):
    path = tmp_path / "val.json"
    content = {
        "images": [{"id": 40, "height": 60, "width": 90, "file_name": "a.png"}],
        "annotations": [],
        "categories": [{"id": 3, "name": "urn"}, {"id": 8, "name": "cup"}, {"id": 9, "name": "plate"}],
    }
    path.write_text(json.dumps(content))
    options = ["--device", "cpu", "--score", "0", "--format", "coco", "--annotations", str(path)]
    main([checkpoint, str(images), "--output", str(tmp_path / "out"), *options])
    found = read_predictions(tmp_path / "out/coco_results.json")
    assert set(found.image_ids) == {40} and set(found.category_ids) == {3, 8, 9} and len(found) == 20
    assert "leaves out 1 images" in capsys.readouterr().err
    main([checkpoint, str(images / "more"), "--output", str(tmp_path / "own"), *options])
    assert set(read_predictions(tmp_path / "own/coco_results.json").image_ids) == {1}
    assert "has none of these images" in capsys.readouterr().err


def test_a_damaged_image_is_named_and_the_rest_goes_on(checkpoint, images, tmp_path, capsys):
    (images / "broken.png").write_bytes(b"not an image")
    main([checkpoint, str(images), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert len(entries(tmp_path / "out")) == 2
    output = capsys.readouterr()
    assert "broken.png" in output.err and "1 unreadable" in output.out and "images/s" in output.out
    with pytest.raises(UserError, match="none of the 1 images"):
        main([checkpoint, str(images / "broken.png"), "--output", str(tmp_path / "none"), "--device", "cpu"])
    assert not (tmp_path / "none/predictions.json").exists()


def test_ctrl_c_keeps_what_was_predicted(checkpoint, images, tmp_path, monkeypatch, capsys):
    class Interrupted(predict.Results):
        def add(self, item, found):
            super().add(item, found)
            raise KeyboardInterrupt

    monkeypatch.setattr(predict, "Results", Interrupted)
    assert main([checkpoint, str(images), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 130
    assert len(entries(tmp_path / "out")) == 1
    assert "what was predicted is written" in capsys.readouterr().err


def test_what_is_wrong_is_named(checkpoint, images, tmp_path):
    folder = str(images)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([checkpoint, str(tmp_path / "absent.jpg")], "no such image"),
        ([checkpoint, str(tmp_path / "empty")], "contains no image"),
        ([checkpoint.replace(".pth", ".pt"), folder], r"checkpoint\.pt"),
        ([checkpoint, folder, "--score", "30"], "score"),
        ([checkpoint, folder, "--format", "xml"], "format 'xml'"),
        ([checkpoint, folder, "--batch_size", "0"], "--batch_size must be at least 1"),
        ([checkpoint, folder, "--precision", "float8"], "float8"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)


def test_a_video_without_pyav_is_named(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"clip\.mp4: av "):
        main([checkpoint, str(tmp_path / "clip.mp4")])


def test_the_command_needs_no_torch_before_it_has_a_checkpoint():
    program = "import sys, tools.predict; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.ci
def test_a_video_becomes_a_drawn_one_with_an_entry_a_frame(checkpoint, images, tmp_path, capsys):
    av = pytest.importorskip("av")
    make_video(images / "clip.mp4")
    (images / "broken.mp4").write_bytes(b"no video")
    options = ["--device", "cpu", "--score", "0", "--batch_size", "2", "--format", "drawn,json,coco,yolo,csv"]
    main([checkpoint, str(images), "--output", str(tmp_path / "out"), *options])
    assert "broken.mp4: cannot be read as a video" in capsys.readouterr().err
    frames = [e for e in entries(tmp_path / "out") if "frame" in e]
    assert [(e["frame"], e["seconds"]) for e in frames] == [(i, i / 10) for i in range(5)]
    assert all(len(e["detections"]) == 20 for e in frames)
    with av.open(frames[0]["drawn"]) as container:
        sizes = [(f.width, f.height) for f in container.decode(video=0)]
    assert sizes == [(640, 480)] * 5
    assert (tmp_path / "out/labels/clip.mp4_000004.txt").is_file()
    table = json.loads((tmp_path / "out/coco_images.json").read_text())
    assert "clip.mp4#4" in [image["file_name"] for image in table["images"]]
