"""The optional requirements: lower bounds only, and versions that agree with constraints.txt."""

import importlib.metadata
import re

import pytest

from tests.source_files import ROOT

OPTIONAL = sorted((ROOT / "requirements").glob("*.txt"))
# gradio and trackio refuse pillow 13.
OLDER_FOR_THE_OPTIONAL_PARTS = {"pillow"}


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pinned(name: str) -> dict[str, str]:
    return dict(line.split("==") for line in lines(name))


def test_optional_packages_have_a_lower_bound_and_no_other():
    for path in OPTIONAL:
        for line in lines(f"requirements/{path.name}"):
            assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?>=[\d.]+", line), f"{path.name}: {line}"


def test_optional_versions_agree_with_the_required_ones():
    required, optional = pinned("constraints.txt"), pinned("constraints.optional.txt")
    different = {name for name in required.keys() & optional.keys() if required[name] != optional[name]}
    assert different == OLDER_FOR_THE_OPTIONAL_PARTS


@pytest.mark.ci
@pytest.mark.parametrize("path", OPTIONAL, ids=lambda path: path.stem)
def test_optional_packages_are_installed_where_ci_tests_run(path):
    for line in lines(f"requirements/{path.name}"):
        name, bound = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", line).groups()
        version = importlib.metadata.version(name)
        assert [int(n) for n in re.findall(r"\d+", version)[:3]] >= [int(n) for n in bound.split(".")]


@pytest.mark.ci
def test_the_browser_runs_scripts(browser):
    page = browser.new_page()
    page.set_content("<p></p><script>document.querySelector('p').append(1 + 1)</script>")
    assert page.inner_text("p") == "2"
