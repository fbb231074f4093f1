"""From a checkpoint and an image to a drawing and JSON."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.inference.tiny import NAMES, make_checkpoint
from tools.predict import main
from util.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.pth")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (height, width) in (("a.png", (60, 90)), ("more/b.jpg", (120, 80))):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_a_folder_becomes_drawings_and_json(checkpoint, images, tmp_path):
    output = tmp_path / "out"
    main([str(checkpoint), str(images), "--output", str(output), "--score", "0", "--device", "cpu"])
    entries = json.loads((output / "predictions.json").read_text())
    assert [(e["width"], e["height"]) for e in entries] == [(90, 60), (80, 120)]
    for entry in entries:
        with Image.open(entry["drawn"]) as drawn:
            # Small images are enlarged by a whole number, never turned or cut.
            assert drawn.width % entry["width"] == 0
            assert drawn.width * entry["height"] == drawn.height * entry["width"]
        scores = [d["score"] for d in entry["detections"]]
        assert len(scores) == 20 and scores == sorted(scores, reverse=True)
        assert {d["name"] for d in entry["detections"]} <= set(NAMES)
    assert (output / "b.jpg.png").is_file()


def test_a_damaged_image_is_named_and_the_rest_goes_on(checkpoint, images, tmp_path, capsys):
    (images / "broken.png").write_bytes(b"not an image")
    main([str(checkpoint), str(images), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())) == 2
    output = capsys.readouterr()
    assert "broken.png" in output.err and "1 unreadable" in output.out


def test_wrong_paths_are_named(checkpoint, images, tmp_path):
    with pytest.raises(UserError, match="no such image"):
        main([str(checkpoint), str(tmp_path / "absent.jpg")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no image"):
        main([str(checkpoint), str(tmp_path / "empty")])
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        main([str(checkpoint.with_suffix(".pt")), str(images)])
    with pytest.raises(UserError, match="score"):
        main([str(checkpoint), str(images), "--score", "30"])
