"""Roboflow's root category, which stands for the whole list of classes and is none itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from util.logging import get_logger


def without_root(
    categories: Sequence[dict[str, Any]], has_boxes: Callable[[int], bool], path: Path
) -> list[dict[str, Any]]:
    """The `categories` of a file without its root, of which a line in the log tells.

    A root has id 0 and the supercategory 'none', is the supercategory of all others, and has no boxes.
    has_boxes: whether a category id has any.
    """
    roots = [c for c in categories if c.get("id") == 0 and c.get("supercategory") == "none"]
    if len(roots) != 1 or len(categories) < 2:
        return list(categories)
    (root,) = roots
    others = [c for c in categories if c is not root]
    if any(c.get("supercategory") != root.get("name") for c in others) or has_boxes(0):
        return list(categories)
    get_logger().info(
        "%s: the category %.60r is the supercategory of all others and has no boxes: it is not a class",
        path,
        root.get("name"),
    )
    return others
