"""What is predicted: every kind of input, each file once, never what an earlier run drew."""

from pathlib import Path

import pytest

from inference.sources import find_sources
from util.errors import UserError

OUTPUT = Path("predictions")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a few empty files."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "a/x.jpg",
        "a/more/y.PNG",
        "b/x.jpg",
        "b/x.png",
        "b/clip.mp4",
        "b/notes.md",
        "b/.hidden.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(*inputs: str, output: Path = OUTPUT) -> list[str]:
    return [source.name for source in find_sources(inputs, output)]


def test_results_of_equal_names_stay_apart(here):
    assert names("a/x.jpg", "b/x.jpg", "b/x.png") == ["a/x.jpg", "b/x.jpg", "b/x.png"]
    assert names("b/x.jpg", "b/x.png") == ["x.jpg", "x.png"]
    assert names("a") == ["more/y.PNG", "x.jpg"]
    assert names("a/x.jpg") == ["x.jpg"]


def test_a_file_counts_once(here):
    assert names("a/x.jpg", str(here / "a/x.jpg"), "a", "a/../a/x.jpg") == ["x.jpg", "more/y.PNG"]


def test_globs(here):
    assert names("b/*.jpg") == ["x.jpg"]
    assert names("?/x.*") == ["a/x.jpg", "b/x.jpg", "b/x.png"]
    assert names("**/x.jpg") == ["a/x.jpg", "b/x.jpg"]
    assert names("a*") == ["more/y.PNG", "x.jpg"]
    (here / "b/[1].jpg").touch()
    assert names("b/[1].jpg") == ["[1].jpg"], "a file of that name is no glob"


def test_lists(here):
    (here / "b/list.txt").write_text("a/x.jpg\n\nx.png\nb/*.jpg\n")
    assert names("b/list.txt") == ["a/x.jpg", "b/x.png", "b/x.jpg"]


def test_videos_and_cameras(here):
    found = find_sources(["b", "camera:0"], OUTPUT)
    assert [(s.name, s.is_video, s.is_camera) for s in found] == [
        ("clip.mp4", True, False),
        ("x.jpg", False, False),
        ("x.png", False, False),
        ("camera_0", True, True),
    ]


def test_results_are_no_input(here):
    before = names(".")
    for name in ("predictions/a/x.jpg.drawn.jpg", "predictions/frame.jpg", "older/clip.mp4.drawn.mp4"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    assert names(".") == before == names("**")
    assert "predictions/frame.jpg" in names(".", output=Path("other")), "no drawing, and not this output"
    assert names("a", output=Path()) == ["more/y.PNG", "x.jpg"], "an input below the output is an input"
    assert names("predictions") == ["frame.jpg"]
    assert names("older/clip.mp4.drawn.mp4") == ["clip.mp4.drawn.mp4"], "what is named is taken"
    with pytest.raises(UserError, match=r"contains no image.* 1 results of predictions are left out"):
        names("older")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent.jpg", r"absent\.jpg: no such image"),
        ("camera:x", "camera:x: no such image"),
        ("empty", "empty: contains no image"),
        ("*.gif", r"\*\.gif: matches no image"),
        ("empty.txt", r"empty\.txt: an empty list"),
        ("lists.txt", r"lists\.txt, line 1: empty\.txt is no image"),
        ("gone.txt", r"gone\.txt, line 2: c/z\.jpg: no such image"),
        ("binary.txt", r"binary\.txt: line 1: byte 3 of the file is not UTF-16"),
    ],
)
def test_wrong_inputs_are_named(here, text, message):
    (here / "empty").mkdir()
    (here / "empty.txt").write_text("\n")
    (here / "lists.txt").write_text("empty.txt\n")
    (here / "gone.txt").write_text("a/x.jpg\nc/z.jpg\n")
    (here / "binary.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=message):
        names(text)
