"""The app, as a user starts it, in a browser: everything a page shows comes from this machine."""

import os
import re
import socket
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from PIL import Image, ImageDraw

from tests.inference.tiny import make_checkpoint
from tests.source_files import ROOT
from tools.app import main
from util.errors import UserError

RING, SQUARE = "plain_red_ring", "plain_blue_square"  # words that the quickstart's CLIP knows
ROW = "#table-{} [data-testid=cell-{}-1]"


def test_without_gradio_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError) as caught:
        main([str(tmp_path / "checkpoint.pth")])
    assert str(caught.value) == "gradio is not installed: pip install -r requirements/app.txt"
    with pytest.raises(UserError, match="--score must be between 0 and 1"):
        main([str(tmp_path / "checkpoint.pth"), "--score", "30"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(*arguments) -> list[str]:
    return [sys.executable, str(ROOT / "tools/app.py"), *map(str, arguments), "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, images, and modules of others that have our packages' names."""
    folder = tmp_path_factory.mktemp("app")
    make_checkpoint(
        folder / "checkpoint.pth",
        use_language=True,
        text_cache_dir=str(folder),
        clip_model="config/quickstart/mini_clip.json",
        clip_pretrained="config/quickstart/mini_clip.safetensors",
    )
    canvas = Image.new("RGB", (640, 480), (150, 145, 140))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((40, 120, 275, 355), outline=(200, 20, 40), width=60)
    draw.rectangle((380, 130, 580, 330), fill=(30, 60, 200))
    (folder / "images").mkdir()
    canvas.save(folder / "images/shapes.png")
    (folder / "broken.png").write_text("no image")
    for name in ("datasets", "models", "util"):
        (folder / "others" / name).mkdir(parents=True)
        (folder / "others" / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    return folder


@pytest.fixture(scope="module")
def url(folder):
    """The address of a running app; it must not have printed a traceback when it is stopped."""
    pytest.importorskip("gradio")
    port = free_port()
    arguments = command(
        folder / "checkpoint.pth", "--port", port, "--score", 0, "--examples", folder / "images"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder / "others"), "GRADIO_TEMP_DIR": str(folder / "up")}
    with open(folder / "log.txt", "w+") as log:
        app = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 300
            while "Ctrl-C" not in (said := (folder / "log.txt").read_text()):
                assert app.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/"
        finally:
            app.terminate()
            app.wait(timeout=60)
        assert "Traceback" not in (folder / "log.txt").read_text()


@pytest.fixture
def page(browser, url):
    """The open page; everything it asked for came from this machine."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.set_default_timeout(60_000)
    page.goto(url)
    page.wait_for_selector("#detect")
    yield page
    context.close()
    outside = [a for a in asked if not a.startswith((url, "data:", "blob:"))]
    assert asked and not outside and not errors


def says(page, element: str, text: str) -> str:
    """Waits until an element's text matches a regular expression, and returns it."""
    page.wait_for_function(
        "([id, text]) => new RegExp(text).test(document.querySelector(id)?.innerText ?? '')",
        arg=[element, text],
    )
    return page.inner_text(element)


def ask(page, side: str, words: str) -> None:
    page.fill(f"#words-{side} textarea", words)
    page.press(f"#words-{side} textarea", "Enter")


def click(page, element: str, x: float, y: float) -> None:
    """Clicks on an image of 4:3, which lies in the middle of its element; x, y in 0..1 of the image."""
    page.locator(element).scroll_into_view_if_needed()
    box = page.locator(element).bounding_box()
    width = min(box["width"], box["height"] * 4 / 3)
    middle_x, middle_y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(middle_x + (x - 0.5) * width, middle_y + (y - 0.5) * width * 3 / 4)


@pytest.mark.ci
def test_two_vocabularies_and_the_teacher(page, folder):
    assert page.title() == f"RichSem: {folder.name}/checkpoint.pth"
    page.set_input_files("#image input[type=file]", folder / "images/shapes.png")
    says(page, "#line-A", r"20 detections at 0\.00 or more · 3 words")
    says(page, "#line-B", "Type other words")
    assert page.inner_text(ROW.format("A", 0)) in ("cup", "plate", "urn")
    ask(page, "B", f"{RING}, {SQUARE}")
    says(page, "#line-B", "20 detections .* 2 words")
    assert page.inner_text(ROW.format("B", 0)) in (RING, SQUARE)
    for side in "AB":  # drawn, and loaded by the browser
        image = page.locator(f"#drawing-{side} img")
        assert image.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [800, 600]
    # A row of the table chooses a detection.
    page.click(ROW.format("A", 2))
    says(page, "#line-detector", "query of this detection")
    assert re.fullmatch(r"[\d., ]+", page.input_value("#box textarea, #box input"))
    # So does a click on a drawing; a box may be typed.
    x0, y0, x1, y1 = map(int, page.inner_text(ROW.format("B", 0).replace("-1]", "-3]")).split(","))
    click(page, "#drawing-B img", (max(x0, 0) + min(x1, 640)) / 1280, (max(y0, 0) + min(y1, 480)) / 960)
    says(page, "#line-teacher", "2 words of B")
    for box, word in (("30, 110, 285, 365", RING), ("370, 120, 590, 340", SQUARE)):
        page.fill("#box textarea, #box input", box)
        page.press("#box textarea, #box input", "Enter")
        says(page, "#teacher .output-class", f"^{word}")
        says(page, "#line-B", f"teacher {word}")
    assert SQUARE in page.inner_text("#detector") and "IoU" in page.inner_text("#line-detector")


@pytest.mark.ci
def test_two_clicks_on_the_image_make_a_box(page, folder):
    page.click("button.gallery-item, .gallery button, [id*=component] .gallery-item")
    says(page, "#line-A", "20 detections")
    for x, y in ((0.1, 0.2), (0.4, 0.8)):
        click(page, "#image img", x, y)
        says(page, "#line-box", "One corner at" if x == 0.1 else r"^\s*$")
    says(page, "#line-A", "In the box: teacher")
    box = [float(v) for v in page.input_value("#box textarea, #box input").split(",")]
    assert box == pytest.approx([64, 96, 256, 384], abs=4)


@pytest.mark.ci
def test_mistakes_are_one_line(page, folder):
    page.click("#detect")
    says(page, "#message", r"^Choose an image first\.$")
    page.set_input_files("#image input[type=file]", folder / "broken.png")
    assert "\n" not in says(page, "#message", r"^broken\.png: does not decode")
    page.click("#image button[aria-label='Remove Image']")
    page.set_input_files("#image input[type=file]", folder / "images/shapes.png")
    says(page, "#line-A", "20 detections")
    ask(page, "A", "cup, , urn")
    says(page, "#line-A", "^Word 2 of 3 is empty")
    ask(page, "A", "Cup, cup")
    says(page, "#line-A", "^'Cup' and 'cup' both mean class 'cup': leave one out$")
    page.fill("#box textarea, #box input", "1, 2, x, 4")
    ask(page, "A", "")
    says(page, "#line-box", "^box '1, 2, x, 4': write four numbers")
    assert "Traceback" not in page.content() and not page.locator(".toast-wrap .error").count()


@pytest.mark.ci
def test_a_phone_shows_one_column(browser, url, folder):
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(url)
    page.set_input_files("#image input[type=file]", folder / "images/shapes.png")
    says(page, "#line-A", "20 detections")
    boxes = [page.locator(part).bounding_box() for part in ("#image", "#words-A", "#words-B", "#box")]
    assert all(a["y"] < b["y"] for a, b in pairwise(boxes))
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


@pytest.mark.ci
def test_a_port_in_use_is_one_line(folder):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            command(folder / "checkpoint.pth", "--port", port), capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == f"error: port {port} is in use: choose another with --port"
    assert "Traceback" not in done.stderr
