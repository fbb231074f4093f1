"""Takes polygons out of JSON text before it is parsed: they are most of an annotation file."""

from __future__ import annotations

_KEY = '"segmentation"'


def without_polygons(text: str) -> str:
    """The text without the lists that are called `segmentation`.

    It may begin and end anywhere; a list that is not whole in it stays. A list that another key follows is
    taken out with its key; the last one of its object becomes 0, for the comma before it.
    """
    parts = []
    copied = 0
    find = text.find
    found = find(_KEY, 1)
    while found > 0:
        start = found + len(_KEY)
        # Up to the next key or, behind the last one, the end of the object: numbers and brackets.
        end = find('"', start)
        between = text[start:end] if end >= 0 else text[start:]
        last = "}" in between
        if last:
            between = between[: between.index("}")]
        elif end < 0:
            break
        # Behind a backslash the quote is part of a string.
        if text[found - 1] != "\\" and (_is_polygon(between) or _is_list(between, "" if last else ",")):
            parts.append(f"{text[copied:start]}:0" if last else text[copied:found])
            copied = start + len(between)
        found = find(_KEY, start + len(between))
    return "".join([*parts, text[copied:]]) if parts else text


def _is_polygon(between: str) -> bool:
    """Whether it is one polygon in the form that LVIS and COCO files have: told quickly."""
    return (
        between.endswith("]], ")
        and between.startswith(": [[")
        and between.find("[", 4) < 0
        and between.find("]") == len(between) - 4
    )


def _is_list(between: str, comma: str) -> bool:
    """Whether it is a colon, a list and `comma`."""
    colon, opening, _ = between.partition("[")
    _, closing, end = between.rpartition("]")
    return (
        opening + closing == "[]"
        and colon.strip() == ":"
        and end.strip() == comma
        and between.count("[") == between.count("]")
    )
