"""`python main.py --eval --names`: the words of an evaluation."""

import json

import pytest

import main as program
from config.command_line import parse_arguments
from tests.datasets.tiny import write_all
from tests.inference.tiny import make_checkpoint
from util.errors import UserError


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Evaluates a checkpoint of three classes, with further flags -> status, last line of errors."""
    data = write_all(tmp_path / "data")
    names = ["red_square", "green_square", "blue_square"]
    checkpoint = make_checkpoint(tmp_path / "a.pth", class_names=names)
    always = ["--eval", "--resume", checkpoint, "--data_path", data, "--device", "cpu", "--num_workers", "0"]

    def run(*words):
        status = program.main([str(word) for word in (*always, *words)])
        return status, (capsys.readouterr().err.strip().splitlines() or [""])[-1]

    return run


def detections(folder) -> list:
    found = json.loads((folder / "eval" / "predictions.json").read_text())
    return sorted((p["image_id"], p["category_id"], round(p["score"], 5), *p["bbox"]) for p in found)


def test_words_in_another_spelling_and_order_are_the_same_classes(evaluate, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("blue square\nRed-Square\ngreen_square\n")
    own, asked = tmp_path / "own", tmp_path / "asked"
    assert evaluate("--save_results", "--output_dir", own)[0] == 0
    assert evaluate("--save_results", "--output_dir", asked, "--names", words)[0] == 0
    assert len(detections(own)) == 100
    for a, b in zip(detections(own), detections(asked), strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_words_that_do_not_fit_are_one_line(evaluate):
    status, line = evaluate("--names", "blue square, red square")
    assert status == 2 and "no word means class 'green_square' of the annotations (1 such)" in line
    status, line = evaluate("--add_names", "ball")
    assert status == 2 and "'ball' is not a class of this checkpoint" in line


def test_words_are_for_evaluation():
    with pytest.raises(UserError, match="--names asks a trained model for other words"):
        parse_arguments(["-c", "a.py", "--output_dir", "o", "--names", "cat"])
