"""The documentation's site builds without a warning, and a browser finds nothing missing or too wide."""

import functools
import http.server
import subprocess
import sys
import threading

import pytest

from tests.docs.blocks import pages
from tests.source_files import ROOT

pytestmark = pytest.mark.ci


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> str:
    """The address of the built site, served from this machine."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def address(page: str) -> str:
    """Where a page of the repository is on the site."""
    return "/" if page == "README.md" else f"/{page.removeprefix('docs/').removesuffix('.md')}/"


def test_every_page_shows_and_loads_all_it_asks_for(site, browser):
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    failures = []
    tab.on("response", lambda r: failures.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    tab.on("requestfailed", lambda r: failures.append(r.url))
    tab.on("pageerror", lambda e: failures.append(str(e)))
    for page in [*pages(), "docs/api.md"]:
        # Going on at once would cut off what a page still loads, and count as a failure.
        tab.goto(site + address(page), wait_until="networkidle")
        assert tab.locator("article h1").count() == 1, page
        assert tab.evaluate("document.documentElement.scrollWidth") <= 1400, f"{page} is too wide"
        assert "no-test" not in tab.inner_text("article"), page
    assert not failures, failures


def test_links_stay_on_the_site_and_lead_somewhere(site, browser):
    tab = browser.new_page()
    links = set()
    for page in pages():
        tab.goto(site + address(page))
        found = tab.eval_on_selector_all("article a[href]", "links => links.map(a => a.href.split('#')[0])")
        links |= {link for link in found if link.startswith(site)}
    assert any("/repository/" in link for link in links)
    assert {link: status for link in links if (status := tab.request.get(link).status) != 200} == {}


def test_the_api_is_documented_from_docstrings(site, browser):
    tab = browser.new_page()
    tab.goto(site + "/api/")
    text = tab.inner_text("article")
    for part in ("load_predictor", "boxes_xyxy", "UserError", "pixels of the upright image"):
        assert part in text, part
