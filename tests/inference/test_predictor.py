"""One object for every kind of input: the same detections, upright, above the thresholds asked for."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.utils import counters

from datasets.images.preprocess import ImageError
from inference import torch_model
from inference.load import load_predictor
from inference.prediction import Prediction
from inference.predictor import Predictor
from tests.inference.tiny import NAMES, make_checkpoint
from util.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint.pth")


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return load_predictor(checkpoint, device="cpu", score=0)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def same(a: Prediction, b: Prediction) -> bool:
    return (
        a.names == b.names
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.boxes_xyxy, b.boxes_xyxy)
    )


def test_every_kind_of_input_gives_the_same_prediction(predictor, pixels, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    first = predictor(path)
    assert len(first) == 20 and first.size == (60, 90) and first.file == str(path)
    assert first.names == tuple(NAMES[label] for label in first.labels)
    for image in (str(path), Image.open(path), pixels, tensor, tensor / 255):
        assert same(predictor(image), first)
    assert [same(p, first) for p in predictor([path, pixels])] == [True, True]
    assert [same(p, first) for p in predictor(tensor[None])] == [True]
    assert [p.file for p in predictor(tmp_path)] == [str(path)]


def test_batches_keep_the_order(predictor, pixels):
    images = [pixels, pixels[:40], pixels[::-1], pixels[:, :50]]
    together = predictor(images, batch_size=3)
    assert [p.size for p in together] == [(60, 90), (40, 90), (60, 90), (60, 50)]
    for image, found in zip(images, together, strict=True):
        # Of one size only: none is padded, so none changes what is found in another.
        assert np.allclose(predictor(image).scores, found.scores, atol=1e-6)


def test_a_cpu_sees_few_large_images_at_a_time(predictor, pixels, monkeypatch):
    # The network sees these at 85x128.
    seen = []
    monkeypatch.setattr(torch_model, "CPU_PIXELS", 2 * 85 * 128)
    monkeypatch.setattr(predictor.model, "output", lambda images, own=predictor.model.output: (
        seen.append(len(images)), own(images))[1])  # fmt: skip
    together = predictor.model.detect([pixels] * 3)
    assert seen == [2, 1] and len(together) == 3
    monkeypatch.setattr(torch_model, "CPU_PIXELS", 1)
    assert len(predictor.model.detect([pixels] * 3)) == 3 and seen == [2, 1, 1, 1, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_upright_image(predictor, pixels, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What a camera stores for this scene, with the orientation that turns it upright again.
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(pixels)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(turn[orientation]))
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    assert same(predictor(path), predictor(pixels))
    assert same(predictor(Image.open(path)), predictor(pixels))


def test_thresholds_by_group_and_class(checkpoint, predictor, pixels):
    everything = predictor(pixels)
    assert {"cup", "plate", "urn"} == set(everything.names), "a tiny model that sees every class"
    assert predictor.model.frequencies == ("r", "c", "f")
    assert len(predictor(pixels, score=1)) == 0
    assert set(predictor(pixels, score={"rare": 0, "others": 1}).names) == {"cup"}
    assert set(predictor(pixels, score={"rare": 0, "cup": 1, "urn": 0, "others": 1}).names) == {"urn"}
    middle = float(np.median(everything.scores))
    kept = load_predictor(checkpoint, device="cpu", score=middle)(pixels)
    assert kept.scores.min() >= middle and len(kept) == (everything.scores >= middle).sum()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (1.5, "between 0 and 1"),
        ({"cup": -1}, "between 0 and 1"),
        ({"cap": 0.5}, "Did you mean 'cup'"),
    ],
)
def test_unfit_scores_are_named(predictor, score, message):
    with pytest.raises(UserError, match=message):
        Predictor(predictor.model, score)


def test_groups_need_known_frequencies(tmp_path):
    path = make_checkpoint(tmp_path / "old.pth", image_counts=[])
    with pytest.raises(UserError, match="how frequent"):
        load_predictor(path, device="cpu", score={"rare": 0.1})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((3, 40, 50), np.uint8), "3x40x50"),
        (torch.zeros(40, 50, 3), r"\(3, H, W\)"),
        (torch.full((3, 4, 4), -1.5), "0..1"),
        (7, "not int"),
    ],
)
def test_unfit_images_are_named(predictor, image, message):
    with pytest.raises(UserError, match=message):
        predictor(image)


def test_files_that_are_no_images_are_named(predictor, tmp_path):
    with pytest.raises(ImageError, match=r"absent\.jpg"):
        predictor(tmp_path / "absent.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.jpg: does not decode"):
        predictor([tmp_path / "text.jpg"])


def test_scores_that_are_not_finite_are_an_error(checkpoint, pixels, tmp_path):
    state = dict(load_predictor(checkpoint, device="cpu").model.trained.model.state_dict())
    state["neck.projections.0.0.weight"] = torch.full_like(state["neck.projections.0.0.weight"], 1e38)
    broken = load_predictor(make_checkpoint(tmp_path / "large.pth", model=state), device="cpu")
    with pytest.raises(UserError, match="not finite"):
        broken(pixels)


def test_precision_and_device_are_checked(checkpoint, predictor, pixels):
    half = load_predictor(checkpoint, device="cpu", precision="float16", score=0)(pixels)
    assert not same(half, predictor(pixels)) and len(half) == 20
    with pytest.raises(UserError, match="float64"):
        load_predictor(checkpoint, device="cpu", precision="float64")
    with pytest.raises(UserError, match="unknown device"):
        load_predictor(checkpoint, device="warp")


@pytest.mark.ci
@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_model_predicts_the_same(checkpoint, pixels):
    eager, compiled = (
        load_predictor(checkpoint, device="cpu", precision="float32", compiled=c, score=0)
        for c in (False, True)
    )
    for image in (pixels, pixels[:40], pixels[:, :50]):
        found, expected = compiled(image), eager(image)
        assert found.names == expected.names
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-2)
    assert counters["stats"]["unique_graphs"] >= 2


def test_a_prediction_draws_itself(predictor, pixels, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    found = predictor(path)
    drawn = np.asarray(found.draw(min_side=0))
    assert drawn.shape == pixels.shape and (drawn != pixels).any()
    assert np.array_equal(drawn, found.draw(Image.fromarray(pixels), min_side=0))
    assert np.array_equal(predictor(pixels, score=1).draw(pixels, min_side=0), pixels)
    with pytest.raises(UserError, match="90x40, the predicted one was 90x60"):
        found.draw(pixels[:40])
    with pytest.raises(UserError, match="no file"):
        predictor(pixels).draw()


@pytest.mark.ci
def test_detections_of_supervision(predictor, pixels):
    supervision = pytest.importorskip("supervision")
    found = predictor(pixels)
    detections = found.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 20
    assert np.array_equal(detections.xyxy, found.boxes_xyxy)
    assert np.array_equal(detections.confidence, found.scores)
    assert np.array_equal(detections.class_id, found.labels)
    best = detections[detections.confidence > np.median(found.scores)]
    assert list(best["class_name"]) == list(found.names[: len(best)])
    assert len(predictor(pixels, score=1).to_supervision()) == 0
    drawn = supervision.BoxAnnotator().annotate(pixels.copy(), detections)
    assert (drawn != pixels).any()


def test_supervision_that_is_not_installed_is_named(predictor, pixels, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="supervision"):
        predictor(pixels).to_supervision()
