"""The report in a browser: opens without an error, and answers to clicks."""

import pytest

from tests.tools.tail_report.evaluations import write_data, write_evaluation
from tools.report import main

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of one run, and of two."""
    root = tmp_path_factory.mktemp("report")
    data = write_data(root / "data", count=12)
    runs = [write_evaluation(root / name, data, seed=n) for n, name in enumerate(("first", "second"))]
    for name, number in (("one", 1), ("two", 2)):
        words = [*map(str, runs[:number]), "--output", str(root / f"{name}.html"), "--bootstrap", "40"]
        main(words)
    return root


@pytest.fixture
def page(browser):
    """A page that fails the test where a script fails, or anything is asked of the network."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    faults = []
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else faults.append(r.url))
    yield opened
    opened.close()
    assert not faults


def names(page):
    return page.locator("#classes tr.row").evaluate_all("rows => rows.map(row => row.dataset.name)")


def sort_by(page, key):
    page.click(f"#classes th[data-key={key}] button")


def test_every_section_is_drawn(page, pages):
    page.goto((pages / "one.html").as_uri())
    for section in ("ap", "errors", "tail", "classes", "confusions", "calibration", "images", "notes"):
        assert page.locator(f"#{section} .content > *").count() > 0, section
    assert page.locator("#calibration svg").count() == 4, "all classes and three groups"
    assert page.locator("#images image").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"
    widths = page.locator("#errors svg rect").evaluate_all(
        "bars => bars.map(b => b.getBoundingClientRect().width)"
    )
    assert sum(widths) > 100


def test_classes_sort_filter_and_open(page, pages):
    page.goto((pages / "one.html").as_uri())
    aps = page.locator("#classes tr.row td:nth-child(5)").all_inner_texts()
    assert aps == sorted(aps, key=float), "worst first"
    sort_by(page, "name")
    assert names(page) == ["blue_square", "green_square", "red_square"]
    sort_by(page, "name")
    assert names(page) == ["red_square", "green_square", "blue_square"]
    sort_by(page, "train_images")
    assert names(page) == ["blue_square", "green_square", "red_square"]
    page.fill("#classes input", "RED")
    assert names(page) == ["red_square"]
    assert page.locator("#classes polyline.curve").count() == 0
    page.click("#classes tr.row")
    assert page.locator("#classes polyline.curve").is_visible()
    page.hover("#classes tr.detail svg", position={"x": 70, "y": 60})
    assert "score" in page.inner_text("#tip")
    page.click("#classes tr.row")
    assert page.locator("#classes polyline.curve").count() == 0
    page.fill("#classes input", "")
    page.click("#classes .choice button[data-key=r]")
    assert names(page) == ["blue_square"]


def test_a_point_of_the_tail_opens_its_class(page, pages):
    page.goto((pages / "one.html").as_uri())
    page.locator("#tail circle").first.dispatch_event("click")
    assert page.locator("#classes tr.row.open").count() == 1
    page.click("#tail .choice button[data-key=image_level_images]")
    assert "image-level" in page.locator("#tail svg").text_content()


def test_two_runs_have_differences_and_a_switch(page, pages):
    page.goto((pages / "two.html").as_uri())
    assert page.locator("#ap .verdict").count() == 4
    assert page.locator("#classes tr.row .verdict").count() == 3
    page.click("#classes tr.row")
    assert page.locator("#classes polyline.curve").count() == 2
    second = page.inner_text("#errors table")
    page.click("#switch button[data-key='0']")
    assert page.inner_text("#errors table") != second
