"""What the page says, without gradio: random weights, and the quickstart's CLIP as teacher."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.inference.tiny import NAMES, make_checkpoint
from tools.demo.answers import Answers, Asked, parse_words
from tools.demo.detector import DemoDetector
from tools.demo.drawing import SIDE
from tools.demo.region import detection_at, parse_box, query_at
from util.errors import UserError

RING, SQUARE = "plain_red_ring", "plain_blue_square"  # words that the quickstart's CLIP knows
MINI_CLIP = {
    "clip_model": "config/quickstart/mini_clip.json",
    "clip_pretrained": "config/quickstart/mini_clip.safetensors",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def answers(folder):
    path = make_checkpoint(folder / "richsem.pth", use_language=True, text_cache_dir=str(folder), **MINI_CLIP)
    return Answers(DemoDetector(path, "cpu"))


@pytest.fixture(scope="module")
def image(folder):
    """A red ring on the left, a blue square on the right."""
    canvas = Image.new("RGB", (128, 96), (150, 145, 140))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((8, 24, 55, 71), outline=(200, 20, 40), width=12)
    draw.rectangle((76, 26, 116, 66), fill=(30, 60, 200))
    canvas.save(folder / "image.png")
    return str(folder / "image.png")


def asked(image, words="", extend=False, score=0.0, box=""):
    return Asked(image, words, extend, score, box)


def test_words_stand_between_commas_or_on_lines():
    assert parse_words(" \n ") == parse_words("", extend=True) and not parse_words("")
    assert parse_words("oat milk, jar\n\n urn ").names == ("oat milk", "jar", "urn")
    assert parse_words("jar", extend=True).add_names == ("jar",)
    with pytest.raises(UserError, match="Word 2 of 3 is empty"):
        parse_words("cup,,jar")


def test_a_path_is_a_word(answers, folder, image):
    (folder / "words.txt").write_text("secret\n")
    result = answers.result(asked(image, str(folder / "words.txt")))
    assert {row[1] for row in result.rows} == {str(folder / "words.txt")}


def test_a_result_is_drawn_and_listed(answers, image):
    result = answers.result(asked(image))
    assert result.drawing.size == (SIDE, SIDE * 96 // 128)
    assert len(result.rows) == 20 and "20 detections at 0.00 or more · 3 words" in result.line
    assert {row[1] for row in result.rows} <= set(NAMES)
    none = answers.result(asked(image, score=1.0))
    assert not none.rows and "0 detections at 1.00 or more, the best has 0." in none.line


def test_vocabularies_share_one_model_and_nothing_is_computed_twice(answers, folder, image):
    before = answers.detector.see(image, parse_words(""))
    runs = []
    weight = before.model.trained.model.encoder.level_embed
    for words, extend, names in (("jar, Cup", False, ("jar", "Cup")), ("jar", True, (*NAMES, "jar"))):
        seen = answers.detector.see(image, parse_words(words, extend))
        hook = seen.model._network.register_forward_hook(lambda *_: runs.append(1))
        assert seen.names == names and seen.model.trained.model.encoder.level_embed is weight
        answers.result(asked(image, words, extend, score=0.5))
        assert answers.detector.see(image, parse_words(words, extend)) is seen
        hook.remove()
    assert not runs
    # Added words leave its own classes alone; torch's sigmoid rounds by where an element stands.
    queries = len(before.query_scores)
    np.testing.assert_allclose(seen.query_scores[:queries, :3], before.query_scores, rtol=1e-6)
    copy = shutil.copy(image, folder / "copy.png")  # not seen yet
    again = answers.detector.see(str(copy), parse_words(""))
    assert np.array_equal(again.query_scores, before.query_scores)


@pytest.mark.parametrize(
    ("words", "extend", "line"),
    [
        ("cup, , jar", False, "Word 2 of 3 is empty"),
        ("oat milk, Oat_Milk", False, "both mean one class"),
        ("Cup, cup", False, "both mean class"),
        ("jar, Plate", True, "a class of the model already"),
        ("<b>, <b>", False, "&lt;b&gt;"),
    ],
)
def test_unfit_words_are_one_line(answers, image, words, extend, line):
    result = answers.result(asked(image, words, extend))
    assert result.drawing is None and line in result.line and 'class="problem"' in result.line
    assert "add_names" not in result.line and "\n" not in result.line
    assert answers.choose_row(asked(image, words, extend), "A", 1) is None


def test_an_unfit_image_is_one_line(answers, folder, image):
    (folder / "text.png").write_text("no image")
    assert "Choose an image first." in answers.image_problem(None)
    line = answers.image_problem(str(folder / "text.png"))
    assert "text.png" in line and str(folder) not in line
    assert answers.image_problem(image) == ""


def test_the_teacher_sees_the_box_and_not_the_rest(answers, image):
    words = f"{RING}, {SQUARE}"
    for box, word in (("6, 22, 58, 74", RING), ("74 24 118 68", SQUARE)):
        region = answers.region(asked(image, words, box=box), "B", None)
        assert next(iter(region.teacher)) == word and sum(region.teacher.values()) == pytest.approx(1)
        assert "Probabilities among the 2 words of B." in region.teacher_line
        assert f"teacher {word}" in region.summary
    among_all = answers.region(asked(image, words, True, box=box), "B", None).teacher
    assert next(iter(among_all)) == SQUARE and len(among_all) == 5


def test_a_chosen_detection_is_its_query(answers, image):
    seen = answers.detector.see(image, parse_words(""))
    chosen = answers.choose_row(asked(image), "A", 4)
    region = answers.region(asked(image, box=chosen.box), "A", chosen)
    name, score = seen.prediction.names[3], seen.prediction.scores[3]
    assert region.detector[name] == pytest.approx(score) and "query of this detection" in region.detector_line
    assert list(region.detector.values()) == sorted(region.detector.values(), reverse=True)
    # By other words, or after an edit, it is a box like any other.
    for side, box in (("B", chosen.box), ("A", "1, 2, 30, 40")):
        assert "IoU" in answers.region(asked(image, box=box), side, chosen).detector_line
    assert answers.choose_row(asked(image, score=1.0), "A", 1) is None


def test_a_click_chooses_the_smallest_detection_there(answers, image):
    boxes = np.array([[0, 0, 100, 90], [10, 10, 50, 50], [20, 20, 60, 60]], np.float32)
    assert [detection_at(boxes, *p) for p in ((5, 5), (15, 15), (55, 55), (120, 5))] == [0, 1, 2, None]
    seen = answers.detector.see(image, parse_words(""))
    x, y = (seen.prediction.boxes_xyxy[0].clip(0, 95).reshape(2, 2).mean(0) * SIDE / 128).tolist()
    chosen = answers.choose_at(asked(image), "A", x, y)
    left, top, right, bottom = (float(v) * SIDE / 128 for v in chosen.box.split(","))
    assert left <= x <= right and top <= y <= bottom
    assert answers.choose_at(asked(image, score=1.0), "A", x, y) is None


def test_the_most_confident_matching_query_speaks_for_a_box(answers, image):
    seen = answers.detector.see(image, parse_words(""))
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.1, 0], [0.2, 0.6], [0.9, 0], [0.3, 0]], np.float32)
    seen = replace(seen, query_boxes_xyxy=boxes, query_scores=scores)
    there = query_at(seen, (0, 0, 10, 10))
    assert there.index == 1 and there.iou == pytest.approx(0.8)
    assert query_at(seen, (0, 0, 10, 10), nearest=True).index == 0
    assert query_at(seen, (50, 50, 90, 90)).index == 3


def test_boxes_are_read_and_cut():
    assert parse_box("30, 4 -5, 90", (60, 80)) == (0, 4, 30, 60)
    for text in ("1, 2, 3", "1, 2, x, 4", ""):
        with pytest.raises(UserError, match="four numbers"):
            parse_box(text, (60, 80))
    for text in ("90, 0, 99, 9", "1, 1, 1, 9", "nan, 0, 9, 9"):
        with pytest.raises(UserError, match="no area in the image of 80 x 60"):
            parse_box(text, (60, 80))


def test_without_a_teacher_the_rest_works(answers, folder, image):
    content = torch.load(folder / "richsem.pth", weights_only=True)
    absent = {"clip_model": "RN50", "clip_pretrained": "gone/clip.pt"}
    path = folder / "absent.pth"
    torch.save({**content, "config": {**content["config"], **absent}}, path)
    plain = make_checkpoint(folder / "plain.pth")
    for file, reason in ((path, "gone/clip.pt"), (plain, "use_language=False")):
        answers = Answers(DemoDetector(file, "cpu"))
        region = answers.region(asked(image, box="0, 0, 50, 50"), "A", None)
        assert "There is no teacher to ask" in region.teacher_line and reason in region.teacher_line
        assert region.teacher is None and len(region.detector) == 3 and not region.summary
        assert reason in answers.result(asked(image, "cup, jar")).line
        assert answers.result(asked(image, "cup, urn")).rows
