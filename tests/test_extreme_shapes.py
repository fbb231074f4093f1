"""Images of one pixel, or a thousand times as long as wide, through training, evaluation and prediction."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datasets.augment.mosaic import Mosaic
from datasets.augment.policy import MOST_PIXELS, EvalPolicy, TrainPolicy
from datasets.build import RunSettings, build_datasets
from datasets.images.preprocess import ImageError, Preprocess, short_side_size
from datasets.sample import Sample
from engine.run_log import read_log
from inference.load import load_predictor
from tests.datasets.annotations.test_yolo import CONFIG
from tests.datasets.images.test_names import put, write_coco
from tests.datasets.tiny import write_all
from tests.inference.tiny import make_checkpoint
from tests.test_cli import config_file as config_file  # a fixture
from tests.test_cli import train

SHAPES = [(3000, 1), (1, 3000), (1, 1), (2, 2), (20000, 30), (30, 20000), (1, 5)]
# The paper's.
POLICY = TrainPolicy((480, 640, 800), 1333, (400, 500, 600), (384, 600))


def sample_of(size):
    return Sample.from_arrays(np.full((*size, 3), 90, np.uint8), [[0, 0, size[1], size[0]]], [0])


@pytest.mark.parametrize("size", SHAPES)
def test_training_policies(size):
    sample = sample_of(size)
    kinds = set()
    for seed in range(6):
        params = POLICY.make_params(size, np.random.default_rng(seed))
        assert params.decode_size[0] * params.decode_size[1] <= MOST_PIXELS
        kinds.add(params.crop is not None)
        result = params(sample)
        assert result.size == tuple(result.image.shape[1:]) and max(result.size) < 1400
        assert result.boxes.tolist()[0] == pytest.approx([0, 0, result.size[1], result.size[0]], abs=0.1)
        assert result.image.unique().tolist() == [90]
    assert kinds == {True, False}
    mosaic = Mosaic(128)([sample, sample_of((64, 64)), sample, sample], np.random.default_rng(0))
    assert mosaic.size == (128, 128) and 1 <= len(mosaic.boxes) <= 4


@pytest.mark.parametrize("size", SHAPES)
def test_evaluation_and_exported_models_see_the_same_size(size):
    target = EvalPolicy(800, 1333).target(size)
    assert min(target) >= 1 and max(target) < 1400
    found = Preprocess(800, 1333)([np.full((*size, 3), 90, np.uint8)])
    assert found.sizes == (target,) and found.original_sizes == (size,)
    canvas = Preprocess(64, 96, canvas=(64, 64))([np.full((*size, 3), 90, np.uint8)])
    assert canvas.images.shape == (1, 3, 64, 64) and min(canvas.sizes[0]) >= 1


def test_no_photograph_is_resized_otherwise_than_before():
    """DETR's sizes, whose long side may be a pixel or two beyond the limit."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = size = tuple(int(side) for side in rng.integers(100, 4000, 2))
        low, high = min(size), max(size)
        short = 800
        if high / low * short > 1333:
            short = round(1333 * low / high)
        expected = (
            (short, int(short * width / height)) if height < width else (int(short * height / width), short)
        )
        assert short_side_size(size, 800, 1333) == expected
        crop = POLICY.make_params(size, np.random.default_rng(0)).decode_size
        assert crop[0] * crop[1] < MOST_PIXELS


def test_prediction_whole_and_in_tiles(tmp_path):
    predictor = load_predictor(make_checkpoint(tmp_path / "checkpoint.pth"), device="cpu", score=0)
    images = [np.full((*size, 3), 90, np.uint8) for size in SHAPES if max(size) < 9000]
    for tile in (None, 512):
        for image, found in zip(images, predictor(images, tile=tile), strict=True):
            height, width = image.shape[:2]
            assert found.size == (height, width) and np.isfinite(found.boxes_xyxy).all()
            assert (found.boxes_xyxy <= [width, height, width, height]).all()


def test_a_blur_that_an_image_is_too_small_for_names_the_image(tmp_path):
    for split in ("train", "val"):
        for i in range(4):
            put(tmp_path / f"{i}.png", size=(64, 1) if i == 2 else (64, 64))
        write_coco(tmp_path, split, [f"{i}.png" for i in range(4)], size=(0, 0))
    config = replace(CONFIG, photometric=("GaussianBlur(7)",), data_aug_scales=(1,), data_aug_max_size=64)
    parts = build_datasets(config, RunSettings(str(tmp_path)))
    (data,) = parts.train_loader.dataset.datasets
    with pytest.raises(ImageError, match=r"2\.png: photometric: 1x1 pixels: .*[Pp]adding"):
        data.augmented(2, np.random.default_rng(0))


def test_a_run(config_file, tmp_path):
    """Both streams, mosaics, the denoising queries and the evaluation, with every third image extreme."""
    data = write_all(tmp_path / "data")
    for split in ("train", "val"):
        path = data / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
        content = json.loads(path.read_text())
        for number, image in enumerate(content["images"]):
            if number % 3 == 0:
                height, width = SHAPES[number % len(SHAPES)]
                image.update(height=height, width=width)
                name = image["coco_url"].removeprefix("http://images.cocodataset.org/")
                Image.new("RGB", (width, height)).save(data / "lvis_v1" / name)
                for box in content["annotations"]:
                    if box["image_id"] == image["id"]:
                        box["bbox"] = [0, 0, width, height]
        path.write_text(json.dumps(content))
    for number, path in enumerate(sorted((data / "imagenet-lvis" / "images").rglob("*.png"))):
        Image.new("RGB", SHAPES[number % len(SHAPES)]).save(path)
    train(config_file, data, tmp_path / "run", options=("epochs=1",))
    (epoch,) = [entry for entry in read_log(tmp_path / "run" / "log.jsonl") if entry["kind"] == "epoch"]
    assert np.isfinite(epoch["total"]) and epoch["metrics"]
    assert epoch["damaged"]["train"]["count"] == epoch["missing"]["train"]["count"] == 0
