"""A headless Chromium for tests of what a browser shows; they are skipped where there is none."""

import shutil
from collections.abc import Iterator

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A running `playwright.sync_api.Browser`; `browser.new_page()` opens a page. Mark the test `ci`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        # Chromium's sandbox refuses to run as root, as in containers.
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()
