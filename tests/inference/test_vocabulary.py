"""A checkpoint asked for other words: by the tower that its config names, from any folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.annotations.categories import Category
from inference.examples import Examples, on_canvas
from inference.load import load_predictor
from inference.vocabulary import names_in
from tests.datasets.tiny import write_all
from tests.inference.tiny import TINY, make_checkpoint
from tools.mini_clip.model import MiniClipSize, build, model_config
from util.errors import UserError

SIZE = MiniClipSize(embed_dim=16, vision_width=8, image_size=64, text_width=16, text_heads=2, text_layers=1)


def write_clip(folder, seed: int) -> dict:
    """A tiny CLIP in files; the config keys that name them."""
    torch.manual_seed(seed)
    (folder / "tiny_clip.json").write_text(json.dumps(model_config(SIZE)))
    torch.save(build(SIZE).state_dict(), folder / f"clip{seed}.pt")
    files = {"clip_model": str(folder / "tiny_clip.json"), "clip_pretrained": str(folder / f"clip{seed}.pt")}
    return {**files, "text_cache_dir": str(folder), "use_language": True}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"), 0)


@pytest.fixture(scope="module")
def checkpoint(clip, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("run") / "language.pth", **clip)


def load(path, **words):
    return load_predictor(path, device="cpu", score=0, **words).model


def text(model):
    return model.trained.model.head.classifier.text.raw


def test_names_become_the_classes(checkpoint):
    own = load(checkpoint)
    asked = load(checkpoint, names="urn, oat milk, Cup")
    assert asked.class_names == ("urn", "oat milk", "Cup")
    assert own.frequencies == ("r", "c", "f") and asked.frequencies == ("f", "", "r")
    assert torch.equal(text(asked)[[0, 2]], text(own)[[2, 0]])
    assert torch.equal(text(load(checkpoint, names=["oat milk"]))[0], text(asked)[1])


def test_added_names_follow_the_model_s_own(checkpoint):
    asked = load(checkpoint, add_names="oat milk, jar")
    assert asked.class_names == ("cup", "plate", "urn", "oat milk", "jar")
    assert asked.frequencies == ("r", "c", "f", "", "")
    with pytest.raises(UserError, match="'Plate' means 'plate', a class of the model already"):
        load(checkpoint, add_names="jar, Plate")
    with pytest.raises(UserError, match="give one of them"):
        load(checkpoint, names="a", add_names="b")
    with pytest.raises(UserError, match="prompts are for the words"):
        load(checkpoint, prompts=["a {}"])


def test_prompts_are_for_other_words(checkpoint):
    usual = text(load(checkpoint, names="cup, jar"))
    own = text(load(checkpoint, names="cup, jar", prompts=["a {x} {}", "{}"]))
    assert torch.equal(usual[0], own[0]) and not torch.allclose(usual[1], own[1])
    with pytest.raises(UserError, match=r"prompt 'a jar' has no \{\}"):
        load(checkpoint, names="cup, jar", prompts=["a jar"])


def test_the_model_s_own_words_need_no_clip(clip, tmp_path):
    path = make_checkpoint(tmp_path / "a.pth", **clip)
    absent = {**TINY, **clip, "clip_pretrained": "gone/clip.pt"}
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": absent}, path)
    assert load(path, names="urn, cup").class_names == ("urn", "cup")
    with pytest.raises(UserError, match=r"clip_pretrained='gone/clip\.pt' does not exist"):
        load(path, names="urn, jar")
    torch.save({**content, "config": absent | write_clip(tmp_path, 1)}, path)
    with pytest.raises(UserError, match=r"clip1\.pt' is not the CLIP that .*a\.pth was trained with"):
        load(path, names="urn, jar")


def test_files_of_the_checkout_are_found_from_any_folder(tmp_path, monkeypatch):
    names = {key: f"config/quickstart/mini_clip.{s}" for key, s in FILES.items()}
    monkeypatch.chdir(tmp_path)
    path = make_checkpoint(tmp_path / "a.pth", use_language=True, text_cache_dir=str(tmp_path), **names)
    assert load(path, names="jar").class_names == ("jar",)


FILES = {"clip_model": "json", "clip_pretrained": "safetensors"}


def test_a_checkpoint_without_texts_is_named(tmp_path):
    path = make_checkpoint(tmp_path / "linear.pth")
    assert load(path, names="urn, cup").class_names == ("urn", "cup")
    with pytest.raises(UserError, match="'jar' is not a class of this checkpoint"):
        load(path, names="urn, jar")


def test_the_words_of_an_evaluation_are_called_as_in_its_annotations():
    categories = [Category(3, "courgette"), Category(4, "cat", synonyms=("puss",))]
    assert names_in(categories, ["dog", "zucchini", "puss"]) == ("dog", "courgette", "cat")
    with pytest.raises(UserError, match="no word means class 'cat' of the annotations"):
        names_in(categories, ["dog", "zucchini"])


def write_examples(folder, names=("jar", "cup")):
    """Two images of every class in a folder of its own."""
    generator = np.random.default_rng(0)
    for name in names:
        for number in range(2):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
    return folder


def test_a_folder_of_images_adds_a_class(checkpoint, tmp_path):
    folder = write_examples(tmp_path)
    model = load(checkpoint, examples=folder)
    assert model.class_names == ("cup", "plate", "urn", "jar"), "cup is trained"
    assert len(model.detect([np.zeros((40, 60, 3), np.uint8)])[0]) == 20
    both = load(checkpoint, add_names="tin, Jar", examples=folder)
    assert both.class_names == ("cup", "plate", "urn", "tin", "Jar")
    added = both.trained.model.head.classifier.added
    torch.testing.assert_close(added.weight[1], model.trained.model.head.classifier.added.weight[0])
    assert added.bias[0] == 0
    asked = load(checkpoint, names="jar, urn", examples=folder)
    assert asked.class_names == ("jar", "urn")


def test_boxes_of_a_training_split_are_examples(checkpoint, tmp_path):
    folder = write_all(tmp_path)
    model = load(checkpoint, names="cup, green square", examples=folder)
    assert model.class_names == ("cup", "green square")
    assert model.trained.model.head.classifier.text.bias[1] != 0


def test_unfit_examples_are_one_line(checkpoint, tmp_path):
    with pytest.raises(UserError, match="gone: no such folder of example images"):
        load(checkpoint, examples=tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: has neither a folder of images per class nor boxes"):
        load(checkpoint, examples=tmp_path / "empty")
    folder = write_examples(tmp_path / "some")
    with pytest.raises(UserError, match=r"its classes \('cup', 'jar'\) are none of the words"):
        load(checkpoint, names="tin", examples=folder)
    with pytest.raises(UserError, match="'jar' is not a class of this checkpoint"):
        load(make_checkpoint(tmp_path / "linear.pth"), examples=folder)


def test_an_image_without_boxes_is_shown_in_the_middle_of_its_mean_colour(checkpoint, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (7, 10, 3), dtype=np.uint8)
    canvas = on_canvas(pixels)
    assert canvas.shape == (21, 30, 3) and np.array_equal(canvas[7:14, 10:20], pixels)
    assert np.abs(canvas[0, 0] - pixels.reshape(-1, 3).mean(0)).max() <= 0.5
    examples = Examples.open(str(write_examples(tmp_path)))
    model = load_predictor(checkpoint, device="cpu").model
    images = list(examples._read(model, [2, 3], [1]))
    assert [e.labels.tolist() for e in images] == [[0], [0]]
    torch.testing.assert_close(images[0].boxes_cxcywh, torch.tensor([[0.5, 0.5, 1 / 3, 1 / 3]]))
