"""From a checkpoint and an image to a drawing and JSON."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from config import Config
from models.richsem.build import build_model
from tools.predict import find_images, labelled, load_detector, main, predict
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError
from util.structures import Detections

NAMES = ["cup", "plate", "urn"]
TINY = {
    "use_language": False,
    "use_visual_distill": False,
    "enc_cls_agn": False,
    "backbone": "resnet10t",
    "backbone_weights": "none",
    "backbone_args": {"channels": [16, 16, 32, 32], "stem_width": 8},
    "return_interm_indices": [1, 2, 3],
    "num_feature_levels": 3,
    "hidden_dim": 32,
    "nheads": 2,
    "dim_feedforward": 32,
    "enc_layers": 1,
    "dec_layers": 1,
    "num_queries": 10,
    "num_select": 20,
    "dn_number": 4,
    "data_aug_scales": [96],
    "data_aug_max_size": 128,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = Config.from_dict(TINY)
    parts = build_model(config, NAMES, [1] * 3, "cpu", training=False)
    path = tmp_path_factory.mktemp("run") / "checkpoint.pth"
    state = parts.model.state_dict()
    save_checkpoint(path, Checkpoint(model=state, class_names=NAMES, config=config.to_dict()))
    return path


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
    assert (output / "more/b.jpg.png").is_file()


def test_the_detector_sees_what_evaluation_sees(checkpoint):
    detector = load_detector(checkpoint, torch.device("cpu"))
    assert detector.trained.class_names == tuple(NAMES)
    assert detector.policy.short_side == 96 and detector.policy.max_size == 128
    image = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
    first, second = detector(image), detector(image)
    assert torch.equal(first.boxes_xyxy, second.boxes_xyxy)


def test_low_scores_are_dropped():
    found = Detections(torch.tensor([0.9, 0.4, 0.1]), torch.tensor([2, 0, 1]), torch.zeros(3, 4))
    assert [b.name for b in labelled(found, tuple(NAMES), 0.3, 100)] == ["urn", "cup"]
    assert [b.name for b in labelled(found, tuple(NAMES), 0.0, 1)] == ["urn"]


def test_a_damaged_image_is_named_and_the_rest_goes_on(images, tmp_path):
    (images / "broken.png").write_bytes(b"not an image")
    found = Detections(torch.tensor([0.9]), torch.tensor([0]), torch.tensor([[5.0, 5.0, 30.0, 30.0]]))
    entries, damaged = predict(
        lambda image: found, tuple(NAMES), find_images([images]), tmp_path / "out", 0.3
    )
    assert len(entries) == 2 and len(damaged) == 1 and "broken.png" in damaged[0]
    assert entries[0]["detections"] == [
        {"name": "cup", "score": pytest.approx(0.9), "box_xyxy": [5, 5, 30, 30]}
    ]


def test_wrong_paths_are_named(checkpoint, images, tmp_path):
    with pytest.raises(UserError, match="no such image"):
        main([str(checkpoint), str(tmp_path / "absent.jpg")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no image"):
        main([str(checkpoint), str(tmp_path / "empty")])
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        main([str(checkpoint.with_suffix(".pt")), str(images)])
    with pytest.raises(UserError, match="--score"):
        main([str(checkpoint), str(images), "--score", "30"])
