"""The report as one HTML file that needs no network and no other file."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent / "page"
_SCRIPTS = ("svg.js", "overview.js", "classes.js", "details.js", "page.js")
# Pairs of classes that the page lists; --json has all.
_CONFUSIONS = 200


def page_of(content: Mapping[str, Any]) -> str:
    """The page of a report's content."""
    shown = _short(content) | {"created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    if "compared" in shown:
        shown["compared"] = _short(shown["compared"])
    # Inside a script element nothing but "<" can end it.
    data = json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c")
    title = " and ".join(run["name"] for run in (content, content.get("compared")) if run)
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (_HERE / "style.css").read_text(encoding="utf-8"),
        "DATA": data,
        "SCRIPT": "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS),
    }
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    # The data last: what is in it is not a placeholder.
    for name in ("TITLE", "STYLE", "SCRIPT", "DATA"):
        page = page.replace(f"{{{{{name}}}}}", parts[name], 1)
    return page


def _short(run: Mapping[str, Any]) -> dict[str, Any]:
    return {**run, "confusions": run["confusions"][:_CONFUSIONS]}
