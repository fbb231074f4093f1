"""What MkDocs does with pages that are also read in the repository.

README.md is the site's first page. Markdown files outside docs/ that a page links to become pages too;
links to other files of the repository become plain text. A page that mkdocs.yml does not list appears under
"More".
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Where pages from outside docs/ are on the site.
ELSEWHERE = "repository"
# Python that the API page documents, in this order.
API = {
    "hubconf.richsem": "The model object",
    "inference.load.load_predictor": "From the checkout",
    "inference.predictor.Predictor": "Calling it",
    "inference.prediction.Prediction": "What it returns",
    "inference.protocols.ImageModel": "A model of your own",
    "models.dino.ops.functional.ms_deform_attn": "Deformable attention",
    "util.errors.UserError": "Errors",
}
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")
_FENCE = re.compile(r"^(\s*)```(\w+) no-test$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Drops pages that are not there yet from the navigation, and appends those that it lacks."""
    there = {path.name for path in (ROOT / "docs").glob("*.md")} | {"index.md", "api.md"}
    listed = set()
    for section in config.nav:
        for title, pages in section.items():
            if isinstance(pages, list):
                section[title] = [page for page in pages if page in there]
                listed.update(section[title])
            else:
                listed.add(pages)
    if more := sorted(there - listed):
        config.nav.append({"More": more})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds README.md, the API page, and the Markdown files that pages link to."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    files.append(File.generated(config, "api.md", content=api_page()))
    waiting = [page.src_uri for page in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        text = files.get_file_from_path(page).content_string
        for _, link, _ in _LINK.findall(text):
            target = repository_path(page, link)
            known = files.get_file_from_path(site_page(target))
            if target.endswith(".md") and (ROOT / target).is_file() and known is None:
                content = (ROOT / target).read_text(encoding="utf-8")
                files.append(File.generated(config, site_page(target), content=content))
                waiting.append(site_page(target))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links at the site's pages and takes the marks of the tests off code blocks."""
    here = page.file.src_uri

    def rewritten(match: re.Match) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        target = site_page(repository_path(here, link))
        if files.get_file_from_path(target) is None:
            return text
        return f"[{text}]({relpath(target, Path(here).parent.as_posix())}{anchor})"

    return _LINK.sub(rewritten, _FENCE.sub(r"\1```\2", markdown))


def repository_path(page: str, link: str) -> str:
    """The file that a link of a site's page means, relative to the repository."""
    if page == "index.md":
        folder = "."
    elif page.startswith(f"{ELSEWHERE}/"):
        folder = Path(page).relative_to(ELSEWHERE).parent.as_posix()
    else:
        folder = "docs"
    return normpath(f"{folder}/{link}")


def site_page(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{ELSEWHERE}/{path}"


def api_page() -> str:
    """Markdown that mkdocstrings fills with docstrings."""
    parts = [f"## {title}\n\n::: {name}\n" for name, title in API.items()]
    return "# Python API\n\nShapes, units and box formats are in the docstrings below.\n\n" + "\n".join(parts)
